// RankExecutor: one rank's side of the steps. Owns the rank's caches, its stage of the model, the swapped caches in host memory and, on the
// sampling rank (last stage, shard 0), what sampling remembers. Owned by the rank's step thread.
//
// begin() sets a step going, finish() waits for the oldest one and answers: on a GPU several are in flight, on the CPU begin() does it all.
#pragma once

#include <memory>
#include <string>

#include "parallel/communicator.h"
#include "worker/engine/engine_options.h"
#include "worker/engine/step_plan.h"
#include "worker/model/tensor_source.h"

namespace accrete::worker {

// What the leader must know of a rank before the first step.
struct RankInfo {
  int64_t pages = 0;
  int64_t page_bytes = 0;
  int64_t row_state_bytes = 0;
  int64_t weight_bytes = 0;
  int64_t cache_state_bytes = 0;
  int64_t workspace_bytes = 0;  // activations, plans, graphs
  int64_t layer_begin = 0, layer_end = 0, kv_head_begin = 0, kv_head_end = 0;
  int64_t max_model_len = 0;
  char host[64] = {};
  char device[64] = {};  // "cpu", or the GPU's name
  int64_t heads() const { return (layer_end - layer_begin) * (kv_head_end - kv_head_begin); }
};

// A rank's place in its replica and the two groups it talks in.
struct RankGroups {
  parallel::Communicator& replica;  // rank = stage * T + shard; 0 leads
  parallel::Communicator& tensor;   // the shards of this stage
  parallel::Topology topology;      // of the replica: data == 1
  int ranks_on_host = 1;
  int local_rank = 0;               // of those on this host: which GPU is its
};

class RankExecutor {
 public:
  virtual ~RankExecutor() = default;
  virtual const RankInfo& info() const = 0;
  virtual void begin(StepPlan plan) = 0;
  virtual int in_flight() const = 0;
  // Whether finish() would not wait. Some step is in flight.
  virtual bool done() = 0;
  virtual StepReport finish() = 0;
  // Throws when the ranks' GPUs talk no more (CommError); for waits outside of begin and finish.
  virtual void check() {}
};

// Loads this rank's shard and allocates its caches on the device that the options name. Collective over the replica. Throws ModelError or
// std::runtime_error, or on all ranks the StartError that tells of some.
std::unique_ptr<RankExecutor> make_executor(const TensorSource& source, const EngineOptions& options, const RankGroups& groups);

parallel::ShardSpec shard_of(const ModelConfig& config, const RankGroups& groups);

}  // namespace accrete::worker
