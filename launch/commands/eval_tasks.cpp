// accrete eval tasks: EleutherAI's lm-eval harness, unmodified, on a running server: finds out what to tell it and becomes it.
#include <fmt/format.h>
#include <fmt/ranges.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include "launch/bench/server_facts.h"
#include "launch/commands/commands.h"
#include "launch/process/python_tool.h"
#include "launch/process/run_capture.h"

namespace accrete::launch {
namespace {

struct TasksFlags {
  HttpServer server;
  std::string model;
  std::string tasks;
  std::string include_path;
  std::string tokenizer;
  std::string python;
  std::string output_path;
  int64_t limit = 0;
  int64_t batch_size = 8;
  int64_t num_concurrent = 1;
  bool print = false;
};

// lm-eval cuts prompts to max_length - 1 tokens, tokenizes at the server (or by transformers), and scores with echo and logprobs.
std::string model_arguments(const TasksFlags& flags, const ServerFacts& facts) {
  std::string text = fmt::format("model={},base_url=http://{}:{}/v1/completions,max_length={},num_concurrent={}", facts.provenance.model, flags.server.host,
                                 flags.server.port, facts.max_model_len, flags.num_concurrent);
  if (flags.tokenizer.empty()) return text + ",tokenizer_backend=remote";
  return text + ",tokenizer_backend=huggingface,tokenizer=" + flags.tokenizer;
}

std::vector<std::string> harness_command(const TasksFlags& flags, const ServerFacts& facts) {
  std::vector<std::string> command{python_program(flags.python), "-m", "lm_eval", "run", "--model", "local-completions", "--tasks", flags.tasks,
                                   "--batch_size", std::to_string(flags.batch_size), "--model_args", model_arguments(flags, facts)};
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) command.insert(command.end(), {name, value});
  };
  add("--include_path", flags.include_path);
  add("--output_path", flags.output_path);
  if (flags.limit > 0) add("--limit", std::to_string(flags.limit));
  return command;
}

void need_harness(const TasksFlags& flags) {
  const std::string python = python_program(flags.python);
  const Captured found = run_capture({python, "-c", "import importlib.util as u; print(all(u.find_spec(n) for n in ('lm_eval', 'aiohttp', 'tenacity')))"});
  if (found.exit_code == 0 && found.output.starts_with("True")) return;
  throw std::runtime_error(fmt::format("{} has no lm-eval: make an environment with it (python3 -m venv ENV && ENV/bin/pip install 'lm-eval[api]') and "
                                       "name it: --python ENV/bin/python; --print shows what would run", python));
}

int run_tasks(const TasksFlags& flags) {
  if (!flags.server.api_key.empty() && flags.tokenizer.empty()) {
    throw UsageError("--api-key: lm-eval takes a key for tokenizing at the server only among its model arguments, which it prints and keeps; "
                     "give --tokenizer DIR to tokenize locally");
  }
  if (!flags.print) need_harness(flags);
  const ServerFacts facts = ask_server(flags.server, flags.model);
  const std::vector<std::string> command = harness_command(flags, facts);
  fmt::print(stderr, "{}\n", facts.provenance.line());
  if (flags.print) {
    fmt::print("{}\n", fmt::join(command, " "));
    return kExitOk;
  }
  if (!flags.server.api_key.empty()) setenv("OPENAI_API_KEY", flags.server.api_key.c_str(), 1);
  setenv("HF_HUB_OFFLINE", "1", 0);  // task files and data stored locally; set it to 0 for tasks that are fetched
  become(command);
}

}  // namespace

Command add_eval_tasks(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("tasks", "lm-eval's tasks on a running server, through its HTTP API");
  auto flags = std::make_shared<TasksFlags>();
  app->add_option("--tasks", flags->tasks, "lm-eval's names, with commas")->required();
  app->add_option("--include-path", flags->include_path, "folder of task files beside lm-eval's own")->type_name("DIR")->check(CLI::ExistingDirectory);
  app->add_option("--host", flags->server.host, "the server's host")->capture_default_str();
  app->add_option("--port", flags->server.port, "its HTTP port")->check(CLI::Range(1, 65535))->capture_default_str();
  app->add_option("--api-key", flags->server.api_key, "its key; better as ACCRETE_API_KEY");
  app->add_option("--model", flags->model, "the model's API name; default: the server's first");
  app->add_option("--tokenizer", flags->tokenizer, "tokenize with this Hugging Face directory instead of at the server (needs transformers)")->type_name("DIR");
  app->add_option("--limit", flags->limit, "examples of each task; 0: all")->check(CLI::Range(0, 1 << 28))->capture_default_str();
  app->add_option("--batch-size", flags->batch_size, "prompts of a request")->check(CLI::Range(1, 4096))->capture_default_str();
  app->add_option("--num-concurrent", flags->num_concurrent, "requests open at once")->check(CLI::Range(1, 4096))->capture_default_str();
  app->add_option("--output-path", flags->output_path, "lm-eval writes its results there")->type_name("PATH");
  app->add_option("--python", flags->python, "the Python that has lm-eval; default ACCRETE_PYTHON or python3")->type_name("PROGRAM");
  app->add_flag("--print", flags->print, "print the command instead of running it");
  return {app, [flags] { return run_tasks(*flags); }};
}

}  // namespace accrete::launch
