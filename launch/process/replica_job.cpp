#include "launch/process/replica_job.h"

#include <unistd.h>

#include "launch/cli/engine_flags.h"

namespace accrete::launch {

std::vector<std::string> replica_command(const worker::EngineOptions& options, const std::string& binary, const std::string& coordinator) {
  std::vector<std::string> command;
  const int ranks = options.topology.replica_ranks();
  if (ranks > 1) {
    // More ranks than cores is allowed; a rank that is told to stop may finish its requests before mpirun kills it.
    command = {"mpirun", "-np", std::to_string(ranks), "--oversubscribe", "--bind-to", "none", "--mca", "btl", "vader,self",
               "--mca", "btl_vader_single_copy_mechanism", "none", "--mca", "odls_base_sigkill_timeout", "10"};
    if (geteuid() == 0) command.push_back("--allow-run-as-root");
  }
  command.push_back(binary);
  command.push_back("worker");
  for (std::string& argument : engine_arguments(options)) command.push_back(std::move(argument));
  command.push_back("--coordinator=" + coordinator);
  return command;
}

}  // namespace accrete::launch
