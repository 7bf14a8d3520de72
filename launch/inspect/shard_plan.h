// What each rank of a T x P replica holds, from a model's sizes alone: no weights are read. Pure.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/dtype.h"
#include "parallel/topology.h"
#include "worker/model/model_config.h"

namespace accrete::launch {

struct RankPlan {
  int rank = 0;
  parallel::Place place;
  parallel::ShardSpec shard;
  int64_t weight_bytes = 0;
  int64_t cache_bytes_per_token = 0;  // of one sequence at CR 1
};

struct ShardPlan {
  std::vector<RankPlan> ranks;  // of one replica
  std::string error;            // empty: the model can be cut like this; else why not, naming the flag
};

ShardPlan plan_shards(const worker::ModelConfig& config, const parallel::Topology& topology, DType weights, DType cache);

// Elements of all weights of the model (tied embeddings once).
int64_t parameters_of(const worker::ModelConfig& config);

// "1.23 GiB"
std::string human_bytes(int64_t bytes);

}  // namespace accrete::launch
