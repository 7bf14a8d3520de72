#include "launch/cli/command_line.h"

#include <fmt/format.h>
#include <spdlog/sinks/stdout_color_sinks.h>
#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>
#include <yaml-cpp/yaml.h>

#include <algorithm>
#include <cctype>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <thread>

#include "launch/cli/job_ranks.h"
#include "launch/commands/commands.h"

namespace accrete::launch {
namespace {

const std::map<std::string, std::string> kShortForms = {
    {"-tp", "--tensor-parallel-size"}, {"-pp", "--pipeline-parallel-size"}, {"-dp", "--data-parallel-size"}};

std::string with_dashes(std::string text) {
  std::replace(text.begin(), text.end(), '_', '-');
  return text;
}

std::string environment_name(const std::string& flag) {
  std::string name = "ACCRETE_";
  for (char c : flag) name += c == '-' ? '_' : static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  return name;
}

std::string one_line(std::string text) {
  while (!text.empty() && text.back() == '\n') text.pop_back();
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

std::vector<std::string> yaml_values(const YAML::Node& node) {
  std::vector<std::string> values;
  if (node.IsSequence()) {
    for (const YAML::Node& item : node) values.push_back(item.as<std::string>());
  } else {
    values.push_back(node.as<std::string>());
  }
  return values;
}

void apply_key(CLI::App& app, const std::string& path, const std::string& key, const YAML::Node& value) {
  CLI::Option* option = app.get_option_no_throw("--" + with_dashes(key));
  if (option == nullptr || key == "config" || key == "help") {
    throw UsageError(fmt::format("--config {}: unknown key '{}'", path, key));
  }
  if (option->count() > 0) return;
  try {
    option->add_result(yaml_values(value));
    option->run_callback();
  } catch (const CLI::Error& error) {
    throw UsageError(fmt::format("--config {}: key '{}': {}", path, key, one_line(error.what())));
  } catch (const YAML::Exception&) {
    throw UsageError(fmt::format("--config {}: key '{}' must be a value or a list of values", path, key));
  }
}

std::string full_name(const CLI::App& app) {
  const CLI::App* parent = app.get_parent();
  return parent == nullptr ? app.get_name() : full_name(*parent) + " " + app.get_name();
}

// Every rank of a job finds the same fault in its flags: rank 0 tells it, the others end a little later, so that mpirun, which ends
// a job at its first failure, does not cut rank 0 short.
int fail(const std::string& who, const std::string& what, int code) {
  if (code == kExitUsage && job_rank() != 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(500));
    return code;
  }
  fmt::print(stderr, "{}: error: {}\n", who, one_line(what));
  return code;
}

// The deepest command the user reached: the one to name in an error.
const CLI::App& reached(const CLI::App& root) {
  const CLI::App* app = &root;
  while (!app->get_subcommands().empty()) app = app->get_subcommands().front();
  return *app;
}

// Lines go to stderr: stdout is for results. Children inherit the level.
void set_up_log(const CLI::App& app) {
  const char* no_colour = std::getenv("NO_COLOR");
  const bool plain = no_colour != nullptr && *no_colour != '\0';
  spdlog::drop("accrete");
  spdlog::set_default_logger(plain ? spdlog::stderr_logger_mt("accrete") : spdlog::stderr_color_mt("accrete"));
  spdlog::set_pattern("%H:%M:%S.%e %^%l%$ %v");
  const std::string name = app.get_name();
  const bool server = app.get_parent()->get_parent() == nullptr && (name == "serve" || name == "worker" || name == "coordinator");
  const CLI::Option* given = app.get_option_no_throw("--log-level");
  const std::string level = given->count() > 0 ? given->as<std::string>() : server ? "info" : "warning";
  spdlog::set_level(spdlog::level::from_str(level));
  setenv("ACCRETE_LOG_LEVEL", level.c_str(), 1);
}

int run_parsed(const std::vector<Command>& commands) {
  for (const Command& command : commands) {
    if (!command.app->parsed()) continue;
    const CLI::Option* config = command.app->get_option_no_throw("--config");
    try {
      refuse_ignored_environment(*command.app);
      if (config != nullptr && config->count() > 0) apply_config_file(*command.app, config->as<std::string>());
      set_up_log(*command.app);
      return command.run();
    } catch (const UsageError& error) {
      return fail(full_name(*command.app), error.what(), kExitUsage);
    } catch (const std::bad_alloc&) {
      return fail(full_name(*command.app), "out of memory; lower --kv-cache-memory-bytes or --max-num-seqs", kExitFailed);
    } catch (const std::exception& error) {
      return fail(full_name(*command.app), error.what(), kExitFailed);
    }
  }
  return kExitUsage;
}

}  // namespace

std::vector<std::string> normalise_arguments(std::vector<std::string> arguments) {
  for (std::string& argument : arguments) {
    if (argument == "--") break;
    const size_t end = std::min(argument.find('='), argument.size());
    const std::string name = argument.substr(0, end);
    if (const auto found = kShortForms.find(name); found != kShortForms.end()) {
      argument = found->second + argument.substr(end);
      continue;
    }
    const bool is_flag = name.size() > 2 && name.starts_with("--") && std::isalpha(static_cast<unsigned char>(name[2])) &&
                         std::all_of(name.begin() + 2, name.end(), [](unsigned char c) {
                           return std::isalnum(c) || c == '-' || c == '_';
                         });
    if (is_flag) argument = with_dashes(name) + argument.substr(end);
  }
  return arguments;
}

void finish_flags(CLI::App& app) {
  app.add_option("--log-level", "trace, debug, info, warning or error; default info for servers, warning for the rest")
      ->check(CLI::IsMember({"trace", "debug", "info", "warning", "error"}));
  app.add_option("--config", "YAML file of flag names and values; the command line and ACCRETE_... win over it")
      ->type_name("FILE.yaml");
  for (CLI::Option* option : app.get_options()) {
    const std::vector<std::string>& names = option->get_lnames();
    if (!names.empty() && names.front() != "help") option->envname(environment_name(names.front()));
  }
}

void refuse_ignored_environment(CLI::App& app) {
  for (CLI::Option* option : app.get_options([](const CLI::Option* each) { return !each->get_envname().empty() && each->count() == 0; })) {
    const char* value = std::getenv(option->get_envname().c_str());
    if (value == nullptr || *value == '\0') continue;
    try {
      option->add_result(std::string(value));
      option->run_callback();
    } catch (const CLI::Error& error) {
      throw UsageError(fmt::format("{}: {}", option->get_envname(), one_line(error.what())));
    }
  }
}

void apply_config_file(CLI::App& app, const std::string& path) {
  YAML::Node root;
  try {
    root = YAML::LoadFile(path);
  } catch (const YAML::BadFile&) {
    throw UsageError(fmt::format("--config {}: cannot read the file", path));
  } catch (const YAML::Exception& error) {
    throw UsageError(fmt::format("--config {}: not YAML: {}", path, error.what()));
  }
  if (root.IsNull()) return;
  if (!root.IsMap()) throw UsageError(fmt::format("--config {}: must be a mapping of flag names to values", path));
  for (const auto& entry : root) apply_key(app, path, entry.first.as<std::string>(), entry.second);
}

std::vector<Command> add_commands(CLI::App& root) {
  root.require_subcommand(1);
  std::vector<Command> commands{add_serve(root), add_coordinator(root), add_worker(root), add_generate(root), add_inspect(root),
                                add_profile(root), add_convert_megatron(root), add_retrofit(root)};
  CLI::App* eval = root.add_subcommand("eval", "measure a model's quality");
  eval->require_subcommand(1);
  commands.push_back(add_eval_perplexity(*eval));
  commands.push_back(add_eval_tasks(*eval));
  CLI::App* bench = root.add_subcommand("bench", "measure speed");
  bench->require_subcommand(1);
  commands.push_back(add_bench_throughput(*bench));
  commands.push_back(add_bench_latency(*bench));
  commands.push_back(add_bench_serve(*bench));
  commands.push_back(add_bench_decode(*bench));
  commands.push_back(add_bench_kernels(*bench));
  for (const Command& command : commands) finish_flags(*command.app);
  return commands;
}

int run_command_line(std::vector<std::string> arguments) {
  CLI::App root("Accrete: distributed inference with key-value caches that compress as they grow", "accrete");
  root.set_version_flag("--version", "accrete " ACCRETE_VERSION);
  root.get_formatter()->column_width(44);
  const std::vector<Command> commands = add_commands(root);
  arguments = normalise_arguments(std::move(arguments));
  if (!arguments.empty()) arguments.erase(arguments.begin());
  std::reverse(arguments.begin(), arguments.end());  // CLI11 takes them last first
  try {
    root.parse(std::move(arguments));
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return root.exit(error);  // --help, --version
    return fail(full_name(reached(root)), error.what(), kExitUsage);
  }
  return run_parsed(commands);
}

}  // namespace accrete::launch
