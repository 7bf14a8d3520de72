#include "launch/bench/decode/largest_batch.h"

#include <cmath>

#include "cache/kv_cache_shape.h"
#include "kernels/gemm/gemm_plans.h"
#include "parallel/topology.h"
#include "worker/engine/settings.h"

namespace accrete::launch {
namespace {

constexpr int64_t kMostBatch = 4096;
constexpr int64_t kGraphNodeBytes = 12 << 10;
constexpr int64_t kSamplerRowBytes = 16 << 10;  // edits, parts
constexpr int64_t kStepKernels = 16;            // of a layer, in a graph

parallel::ShardSpec shard_of_rank(const RankMemory& rank) {
  parallel::ShardSpec shard;
  shard.layers = {rank.layer_begin, rank.layer_end};
  shard.kv_heads = {rank.kv_head_begin, rank.kv_head_end};
  return shard;
}

int64_t graphs_up_to(int64_t batch) {
  int64_t count = 0;
  for (int64_t size = 1; size <= batch; size = token_bucket(size) + 1) ++count;
  return count;
}

// What grows with the batch beside the cache.
int64_t batch_bytes(const worker::ModelConfig& model, const RankMemory& rank, int64_t batch) {
  const int64_t rows = token_bucket(batch);
  const int64_t graphs = graphs_up_to(batch) * (rank.layer_end - rank.layer_begin) * kStepKernels * kGraphNodeBytes;
  return rows * (model.vocab * (2 + 2 * 4) + kSamplerRowBytes) + graphs;
}

}  // namespace

double pages_of_sequence(const worker::EngineOptions& options, const worker::ModelConfig& model, const RankMemory& rank, int64_t tokens) {
  DmcParams dmc = worker::dmc_params(options, model);
  dmc.model_layers = static_cast<int>(model.layers);
  dmc.model_kv_heads = static_cast<int>(model.kv_heads);
  double pages = 0.0;
  for (int layer = rank.layer_begin; layer < rank.layer_end; ++layer) {
    for (int head = rank.kv_head_begin; head < rank.kv_head_end; ++head) {
      const double kept = dmc.mode == DmcMode::synthetic ? 1.0 - synthetic_rate(dmc, layer, head) : 1.0;
      pages += std::ceil(static_cast<double>(tokens) * kept / options.block_size) + 2.0 / options.block_size;
    }
  }
  return pages;
}

int64_t largest_batch(const worker::EngineOptions& options, const worker::ModelConfig& model, const std::vector<RankMemory>& ranks, int64_t tokens) {
  int64_t best = kMostBatch;
  for (const RankMemory& rank : ranks) {
    cache::KvCacheShape shape = worker::cache_shape(options, model, shard_of_rank(rank));
    shape.sequences = 1;
    shape.pages = rank.pages;
    const int64_t budget = shape.state_bytes() + rank.pages * rank.page_bytes + batch_bytes(model, rank, 1);
    const double each = pages_of_sequence(options, model, rank, tokens);
    int64_t low = 0, high = best;
    while (low < high) {
      const int64_t batch = (low + high + 1) / 2;
      shape.sequences = batch;
      shape.pages = static_cast<int64_t>(std::ceil(each * static_cast<double>(batch)));
      const bool fits = shape.state_bytes() + shape.pages * rank.page_bytes + batch_bytes(model, rank, batch) <= budget;
      if (fits) low = batch;
      else high = batch - 1;
    }
    best = low;
  }
  return best;
}

}  // namespace accrete::launch
