// `accrete bench kernels` alone, for GPU machines that have the kernels' libraries but not the server's (tests/kernels/standalone).
#include <cstdio>

#include "launch/commands/commands.h"

int main(int argc, char** argv) {
  using namespace accrete::launch;
  CLI::App root("the bench of the CUDA kernels");
  const Command command = add_bench_kernels(root);
  root.require_subcommand(1);
  CLI11_PARSE(root, argc, argv);
  try {
    return command.run();
  } catch (const std::exception& error) {
    std::fprintf(stderr, "bench kernels: error: %s\n", error.what());
    return kExitFailed;
  }
}
