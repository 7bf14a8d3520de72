#include "launch/process/replica_job.h"

#include <unistd.h>

#include "launch/cli/engine_flags.h"

namespace accrete::launch {

std::vector<std::string> replica_command(const worker::EngineOptions& options, const std::string& binary, const std::string& coordinator) {
  std::vector<std::string> command;
  const int ranks = options.topology.replica_ranks();
  if (ranks > 1) {
    // More ranks than cores is allowed. When a rank dies mpirun tells the others to stop, who wait for requests that cannot go on:
    // it kills them after two seconds. An intended stop needs no longer, for the coordinator has drained before.
    command = {"mpirun", "-np", std::to_string(ranks), "--oversubscribe", "--bind-to", "none", "--mca", "btl", "vader,self",
               "--mca", "btl_vader_single_copy_mechanism", "none", "--mca", "odls_base_sigkill_timeout", "2"};
    if (geteuid() == 0) command.push_back("--allow-run-as-root");
  }
  command.push_back(binary);
  command.push_back("worker");
  for (std::string& argument : engine_arguments(options)) command.push_back(std::move(argument));
  command.push_back("--coordinator=" + coordinator);
  command.push_back("--reconnect-seconds=0");  // the coordinator is our own process: once gone it does not come back
  return command;
}

}  // namespace accrete::launch
