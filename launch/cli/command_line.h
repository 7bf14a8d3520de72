// The command line: which command, its flags from four sources, the exit code.
// Precedence: command line, then environment (ACCRETE_MAX_MODEL_LEN for --max-model-len), then --config FILE.yaml, then defaults.
#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace accrete::launch {

// 0 an intended stop, 1 the world failed, 2 bad flags.
constexpr int kExitOk = 0;
constexpr int kExitFailed = 1;
constexpr int kExitUsage = 2;

// Flags that do not fit together, found after parsing. Ends the process with kExitUsage.
struct UsageError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// One leaf of the command tree: its flags live in `app`, `run` is called once they are final and returns the exit code.
struct Command {
  CLI::App* app = nullptr;
  std::function<int()> run;
};

// "--max_model_len=8" -> "--max-model-len=8", "-tp" -> "--tensor-parallel-size". Stops at a bare "--".
std::vector<std::string> normalise_arguments(std::vector<std::string> arguments);

// Gives every option of a command its environment variable and adds --config. Call after all options are there.
void finish_flags(CLI::App& app);

// Fills options that neither the command line nor the environment set from a YAML mapping of flag names to values.
// Throws UsageError naming the file and the key when a key is no flag of this command or its value does not fit.
void apply_config_file(CLI::App& app, const std::string& path);

// CLI11 takes values from the environment, but from 2.4 on passes over those that its checks refuse. Throws UsageError naming the variable and
// what is wrong with it. After parsing.
void refuse_ignored_environment(CLI::App& app);

// Builds all commands under `root`.
std::vector<Command> add_commands(CLI::App& root);

// The whole of main(): parses, runs, reports errors in one line on stderr, returns the exit code.
int run_command_line(std::vector<std::string> arguments);

}  // namespace accrete::launch
