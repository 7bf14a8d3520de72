// Rank: what a process or thread of a replica builds before its first step, the same for threads and MPI: the groups, the model's shard, the
// caches, and on the leader what all ranks said of themselves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "worker/engine/leader.h"
#include "worker/service/replica.h"

namespace accrete::worker {

// The ranks of the job on this host, and which of them this one is.
struct HostRanks {
  int ranks = 1;
  int mine = 0;
};

class Rank {
 public:
  // Collective over the replica's ranks (stage * T + shard). When some cannot start, all of them throw the same StartError, which names them.
  Rank(const TensorSource& source, const EngineOptions& options, parallel::Communicator& replica, const HostRanks& host);

  bool leads() const { return replica_.rank() == 0; }
  RankExecutor& executor() { return *executor_; }
  const std::vector<RankInfo>& infos() const { return infos_; }  // of every rank, on every rank

 private:
  parallel::Communicator& replica_;
  std::unique_ptr<parallel::Communicator> tensor_;
  std::unique_ptr<RankExecutor> executor_;
  std::vector<RankInfo> infos_;
};

// The pieces of a replica's description.
std::string served_name(const EngineOptions& options);
rpc::ModelCard model_card(const TensorSource& source, const EngineOptions& options, int64_t max_model_len);
rpc::ReplicaShape replica_shape(const EngineOptions& options, const std::vector<RankInfo>& infos);
rpc::ReplicaReport replica_report(const LeaderStatus& status);

// The longest sequence that this replica can hold: --max-model-len, the model's, or what the tightest rank's pages hold at CR 1.
int64_t usable_model_len(const EngineOptions& options, const std::vector<RankInfo>& infos);

// "weights 257 MiB, cache 4.0 GiB ...", the lines printed at start-up.
std::vector<std::string> memory_plan(const EngineOptions& options, const ModelConfig& config, const std::vector<RankInfo>& infos);

Leader::Setup leader_setup(const EngineOptions& options, const ModelConfig& config, const std::vector<RankInfo>& infos, OutputSink sink);

}  // namespace accrete::worker
