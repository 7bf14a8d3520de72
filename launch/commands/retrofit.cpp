// accrete retrofit: trains a Llama to compress its cache. launch/retrofit, a Python program over PyTorch, does it and reads the flags.
#include "launch/commands/commands.h"
#include "launch/process/python_tool.h"

namespace accrete::launch {
namespace {

int run_retrofit(const std::vector<std::string>& flags) {
  std::vector<std::string> command{python_program(), "-B", python_tool("retrofit")};
  command.insert(command.end(), flags.begin(), flags.end());
  become(command);
}

}  // namespace

Command add_retrofit(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("retrofit", "train a Llama to compress its cache (PyTorch); --help lists the flags");
  app->set_help_flag();   // the program's own
  app->prefix_command();  // what is no flag here is the program's
  return {app, [app] { return run_retrofit(app->remaining()); }};
}

}  // namespace accrete::launch
