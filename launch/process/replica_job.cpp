#include "launch/process/replica_job.h"

#include <unistd.h>

#include <algorithm>
#include <thread>

#include "launch/cli/engine_flags.h"

namespace accrete::launch {

bool replicas_share(const worker::EngineOptions& options, int gpus) {
  return gpus > 0 && options.topology.data > 1 && options.topology.data * options.topology.replica_ranks() > gpus;
}

worker::EngineOptions replica_options(const worker::EngineOptions& options, int index, int gpus) {
  worker::EngineOptions replica = options;
  const int ranks = options.topology.replica_ranks();
  replica.topology.data = 1;
  replica.base_gpu_id += index * ranks;
  if (replicas_share(options, gpus) && replica.all_reduce == "auto") replica.all_reduce = "group";
  if (replica.cpu_threads == 0) {
    replica.cpu_threads = std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / (options.topology.data * ranks));
  }
  return replica;
}

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
