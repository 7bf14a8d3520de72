#include "launch/cli/command_line.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>
#include <fstream>

namespace accrete::launch {
namespace {

struct Example {
  int64_t length = 7;
  std::string name;
  bool verbose = false;
  std::vector<std::string> prompts;
  CLI::App app{"example", "example"};

  Example() {
    app.add_option("--max-model-len", length)->check(CLI::Range(1, 100));
    app.add_option("--name", name);
    app.add_flag("--verbose", verbose);
    app.add_option("--prompt", prompts);
    finish_flags(app);
  }
  void parse(std::vector<std::string> arguments) {
    std::reverse(arguments.begin(), arguments.end());
    app.parse(arguments);
  }
};

class ConfigFile : public ::testing::Test {
 protected:
  std::string write(const std::string& text) {
    const std::string path = ::testing::TempDir() + "accrete_command_line_test." + std::to_string(getpid()) + ".yaml";
    std::ofstream(path) << text;
    return path;
  }
  std::string error_of(Example& example, const std::string& text) {
    try {
      apply_config_file(example.app, write(text));
    } catch (const UsageError& error) {
      return error.what();
    }
    return "";
  }
  void TearDown() override { unsetenv("ACCRETE_MAX_MODEL_LEN"); }
};

int run(std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), "accrete");
  return run_command_line(std::move(arguments));
}

TEST(NormaliseArguments, UnderscoresAndShortForms) {
  const std::vector<std::string> given{"accrete", "serve", "my_model", "--max_model_len=8", "--served_model_name", "a_b", "-tp", "2", "-pp=3", "-dp", "1"};
  const std::vector<std::string> wanted{"accrete", "serve", "my_model", "--max-model-len=8", "--served-model-name", "a_b",
                                        "--tensor-parallel-size", "2", "--pipeline-parallel-size=3", "--data-parallel-size", "1"};
  EXPECT_EQ(normalise_arguments(given), wanted);
}

TEST(NormaliseArguments, LeavesTextAlone) {
  const std::vector<std::string> given{"--", "--a_b", "-tp"};
  EXPECT_EQ(normalise_arguments(given), given);
  const std::vector<std::string> text{"--snake_case is fine", "--_x"};
  EXPECT_EQ(normalise_arguments(text), text);
}

TEST_F(ConfigFile, FillsWhatIsNotSet) {
  Example example;
  example.parse({"--name", "mine"});
  apply_config_file(example.app, write("max_model_len: 42\nname: theirs\nverbose: true\nprompt: [a, b]\n"));
  EXPECT_EQ(example.length, 42);
  EXPECT_EQ(example.name, "mine");
  EXPECT_TRUE(example.verbose);
  EXPECT_EQ(example.prompts, (std::vector<std::string>{"a", "b"}));
}

TEST_F(ConfigFile, EnvironmentWinsOverFileAndCommandLineOverEnvironment) {
  setenv("ACCRETE_MAX_MODEL_LEN", "50", 1);
  Example from_environment;
  from_environment.parse({});
  apply_config_file(from_environment.app, write("max-model-len: 42\n"));
  EXPECT_EQ(from_environment.length, 50);
  Example from_line;
  from_line.parse({"--max-model-len", "60"});
  EXPECT_EQ(from_line.length, 60);
}

TEST_F(ConfigFile, AnEnvironmentThatParsingPassedOverIsRefused) {
  Example example;
  example.parse({});
  refuse_ignored_environment(example.app);
  setenv("ACCRETE_MAX_MODEL_LEN", "none", 1);  // after parsing: as if it had been passed over
  try {
    refuse_ignored_environment(example.app);
    FAIL() << "taken";
  } catch (const UsageError& error) {
    EXPECT_NE(std::string(error.what()).find("ACCRETE_MAX_MODEL_LEN"), std::string::npos) << error.what();
  }
  Example given;
  unsetenv("ACCRETE_MAX_MODEL_LEN");
  given.parse({"--max-model-len", "60"});
  setenv("ACCRETE_MAX_MODEL_LEN", "none", 1);
  refuse_ignored_environment(given.app);  // the command line won
  EXPECT_EQ(given.length, 60);
}

TEST_F(ConfigFile, NamesWhatIsWrong) {
  Example example;
  example.parse({});
  EXPECT_NE(error_of(example, "colour: red\n").find("unknown key 'colour'"), std::string::npos);
  EXPECT_NE(error_of(example, "max-model-len: 4000\n").find("'max-model-len'"), std::string::npos);
  EXPECT_NE(error_of(example, "- a\n- b\n").find("mapping"), std::string::npos);
  EXPECT_NE(error_of(example, "a: [\n").find("not YAML"), std::string::npos);
  EXPECT_NE(error_of(example, "name: {a: b}\n").find("'name'"), std::string::npos);
  EXPECT_THROW(apply_config_file(example.app, "does-not-exist.yaml"), UsageError);
}

TEST_F(ConfigFile, EmptyFileIsFine) {
  Example example;
  example.parse({});
  EXPECT_EQ(error_of(example, ""), "");
  EXPECT_EQ(example.length, 7);
}

TEST(ExitCodes, UsageErrorsAreTwo) {
  EXPECT_EQ(run({}), kExitUsage);
  EXPECT_EQ(run({"dance"}), kExitUsage);
  EXPECT_EQ(run({"serve", "--no-such-flag"}), kExitUsage);
  EXPECT_EQ(run({"serve", "--port", "abc"}), kExitUsage);
  EXPECT_EQ(run({"serve", "--port", "70000"}), kExitUsage);
  EXPECT_EQ(run({"serve", "--tensor-parallel-size", "0"}), kExitUsage);
  EXPECT_EQ(run({"generate", "tiny", "--load-format", "dummy", "--prompt", "x", "--max-num-seqs", "32769"}), kExitUsage);
  EXPECT_EQ(run({"generate", "tiny", "--load-format", "dummy", "--prompt", "x", "--max-num-batched-tokens", "1048577"}), kExitUsage);
  EXPECT_EQ(run({"bench"}), kExitUsage);
  EXPECT_EQ(run({"bench", "serve", "--percentile-metrics", "ttft,speed"}), kExitUsage);
  EXPECT_EQ(run({"bench", "serve", "--metric-percentiles", "101"}), kExitUsage);
  EXPECT_EQ(run({"generate", "--load-format", "dummy", "--prompt", "x"}), kExitUsage);
  EXPECT_EQ(run({"inspect", "x", "--config", "does-not-exist.yaml"}), kExitUsage);
}

TEST(ExitCodes, HelpAndVersionAreZero) {
  EXPECT_EQ(run({"--version"}), kExitOk);
  EXPECT_EQ(run({"--help"}), kExitOk);
  EXPECT_EQ(run({"serve", "--help"}), kExitOk);
  EXPECT_EQ(run({"bench", "latency", "--help"}), kExitOk);
}

TEST(ExitCodes, BrokenWorldIsOne) {
  EXPECT_EQ(run({"inspect", "no/such/model.gguf"}), kExitFailed);
  EXPECT_EQ(run({"bench", "serve", "--port", "1"}), kExitFailed);
}

}  // namespace
}  // namespace accrete::launch
