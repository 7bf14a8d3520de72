// RankExecutor: one rank's side of a step. Owns the rank's caches, its stage of the model, the swapped caches in host memory and, on the
// sampling rank (last stage, shard 0), the samplers. Owned by the rank's step thread.
#pragma once

#include <memory>
#include <string>

#include "cache/kv_cache.h"
#include "kernels/thread_pool.h"
#include "parallel/communicator.h"
#include "worker/engine/engine_options.h"
#include "worker/engine/sampler.h"
#include "worker/engine/step_plan.h"
#include "worker/model/llama_stage.h"

namespace accrete::worker {

// What the leader must know of a rank before the first step.
struct RankInfo {
  int64_t pages = 0;
  int64_t page_bytes = 0;
  int64_t row_state_bytes = 0;
  int64_t weight_bytes = 0;
  int64_t cache_state_bytes = 0;
  int64_t layer_begin = 0, layer_end = 0, kv_head_begin = 0, kv_head_end = 0;
  int64_t max_model_len = 0;
  char host[64] = {};
  int64_t heads() const { return (layer_end - layer_begin) * (kv_head_end - kv_head_begin); }
};

// A rank's place in its replica and the two groups it talks in.
struct RankGroups {
  parallel::Communicator& replica;  // rank = stage * T + shard; 0 leads
  parallel::Communicator& tensor;   // the shards of this stage
  parallel::Topology topology;      // of the replica: data == 1
  int ranks_on_host = 1;
};

class RankExecutor {
 public:
  // Loads this rank's shard and allocates its caches. Throws ModelError or std::runtime_error.
  RankExecutor(const TensorSource& source, const EngineOptions& options, RankGroups groups);

  const RankInfo& info() const { return info_; }
  StepReport execute(const StepPlan& plan);

 private:
  void move_rows(const StepPlan& plan, StepReport& report);
  void run_items(const StepPlan& plan, StepReport& report);
  void fill_batch(const StepPlan& plan);
  void receive_hidden(int64_t tokens);
  void send_hidden(int64_t tokens);
  std::vector<double> mean_head_slots() const;
  bool first_stage() const { return place_.stage == 0; }
  bool last_stage() const { return place_.stage + 1 == groups_.topology.pipeline; }

  RankGroups groups_;
  parallel::Place place_;
  ThreadPool pool_;
  DmcParams dmc_;
  std::unique_ptr<cache::KvCache> cache_;
  std::unique_ptr<LlamaStage> stage_;
  RankInfo info_;
  Samplers samplers_;
  std::vector<std::pair<RequestId, std::vector<std::byte>>> swapped_;
  // The step's batch; sized once.
  std::vector<int32_t> row_, token_begin_, position_, ids_, logit_tokens_;
  std::vector<uint64_t> keys_;
};

}  // namespace accrete::worker
