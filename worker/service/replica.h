// The ways to run a replica: as threads of this process (generate, bench, eval, tests), or as one rank of an MPI job.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/proto/accrete.pb.h"
#include "parallel/communicator.h"
#include "worker/engine/engine_options.h"
#include "worker/engine/request.h"

namespace accrete::worker {

// A snapshot of a replica, as /v1/cluster, inspect and the ten-second log line show it.
struct ReplicaStatus {
  rpc::ReplicaShape shape;
  rpc::ReplicaReport report;
};

// T * P ranks as threads of this process, one of them the leader. Thread-safe.
class LocalReplica {
 public:
  // Loads the model (progress on stderr); throws ModelError, std::runtime_error. Outputs come from the step thread.
  LocalReplica(const EngineOptions& options, OutputSink sink);
  ~LocalReplica();  // cancels what runs, joins all ranks

  const rpc::ModelCard& model() const;
  void submit(Request request);
  void cancel(RequestId id);
  void wait_idle();  // until no request is open; throws what a rank threw
  ReplicaStatus status() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

struct WorkerOptions {
  EngineOptions engine;
  std::string coordinator;    // HOST:PORT of its RPC port
  std::string api_key;
  double reconnect_seconds = 10.0;
  double shutdown_seconds = 30.0;  // open requests may take so long to end after SIGTERM
  // When no coordinator is named, the leader calls this once its model is ready and links to the HOST:PORT it returns
  // (main() starts an embedded coordinator there).
  std::function<std::string(const rpc::ModelCard&)> start_coordinator;
};

// One rank of a job of T * P * R ranks; returns the process's exit code when told to stop (SIGTERM drains), throws when the world failed.
int run_worker(parallel::Communicator& world, const WorkerOptions& options);

}  // namespace accrete::worker
