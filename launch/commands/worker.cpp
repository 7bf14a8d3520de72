// accrete worker: one rank of a job of T x P x R ranks, under mpirun; alone when that is one.
#include <fmt/format.h>
#include <sys/prctl.h>

#include <csignal>
#include <memory>
#include <optional>

#include "launch/cli/engine_flags.h"
#include "launch/cli/job_ranks.h"
#include "launch/commands/commands.h"
#include "launch/server/front.h"
#include "parallel/mpi_communicator.h"
#include "worker/service/rank_watch.h"
#include "worker/service/replica.h"

namespace accrete::launch {
namespace {

struct WorkerFlags {
  EngineFlags engine;
  ServerFlags server;
  std::string coordinator;
  double reconnect_seconds = 10.0;
  double rank_timeout = 6.0;
};

void check_coordinator(const std::string& address) {
  const size_t colon = address.rfind(':');
  int port = 0;
  const bool fits = colon != std::string::npos && colon > 0 && CLI::detail::lexical_cast(address.substr(colon + 1), port) && port > 0 && port < 65536;
  if (!fits) throw UsageError(fmt::format("--coordinator {}: must be HOST:PORT", address));
}

void check_ranks(const parallel::Topology& topology) {
  const int ranks = job_ranks();
  if (ranks == topology.ranks()) return;
  throw UsageError(fmt::format("{} rank{} started, but --tensor-parallel-size {} x --pipeline-parallel-size {} x --data-parallel-size {} needs {}: mpirun -np {}",
                               ranks, ranks == 1 ? "" : "s", topology.tensor, topology.pipeline, topology.data, topology.ranks(), topology.ranks()));
}

int run_rank(parallel::Communicator& world, WorkerFlags& flags) {
  const worker::RankWatch watch(world, flags.rank_timeout);
  worker::WorkerOptions options;
  options.engine = flags.engine.options;
  options.coordinator = flags.coordinator;
  options.api_key = flags.server.api_key;
  options.reconnect_seconds = flags.reconnect_seconds;
  options.shutdown_seconds = flags.server.shutdown_timeout;
  std::optional<Front> front;
  if (flags.coordinator.empty() && world.rank() == 0) {
    front.emplace(flags.server);  // before the model is loaded: a busy port is told at once
    options.start_coordinator = [&front](const rpc::ModelCard&) { return front->address(); };
  }
  const int code = worker::run_worker(world, options);
  if (front && code == kExitOk) front->drain();
  world.barrier();  // all are watched until the last one is done
  return code;
}

int run_worker_command(WorkerFlags& flags) {
  check_ranks(flags.engine.options.topology);
  check_server_flags(flags.server);
  if (!flags.coordinator.empty()) check_coordinator(flags.coordinator);
  else if (job_rank() == 0) load_tls_files(flags.server);
  finish_engine_flags(flags.engine);
  if (!parallel::under_mpi_launcher()) {
    const auto world = parallel::make_single();
    return run_rank(*world, flags);
  }
  prctl(PR_SET_PDEATHSIG, SIGTERM);  // a rank does not outlive its mpirun
  parallel::MpiSession session;
  const auto world = session.world();
  return run_rank(*world, flags);
}

}  // namespace

Command add_worker(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("worker", "one rank of a replica; mpirun -np T*P*R accrete worker MODEL -tp T -pp P");
  auto flags = std::make_shared<WorkerFlags>();
  add_engine_flags(*app, flags->engine);
  add_server_flags(*app, flags->server);
  app->add_option("--coordinator", flags->coordinator, "the coordinator to join; none: rank 0 brings one and serves on --port")->type_name("HOST:PORT");
  app->add_option("--reconnect-seconds", flags->reconnect_seconds, "how long to look for a lost coordinator before giving up")
      ->check(CLI::Range(0.0, 86400.0))->capture_default_str();
  app->add_option("--rank-timeout", flags->rank_timeout, "seconds without a heartbeat after which a rank counts as lost and the job ends; 0: never")
      ->check(CLI::Range(0.0, 86400.0))->capture_default_str();
  return {app, [flags] { return run_worker_command(*flags); }};
}

}  // namespace accrete::launch
