#include "launch/inspect/shard_plan.h"

#include <fmt/format.h>

#include "worker/model/llama_stage.h"

namespace accrete::launch {
namespace {

int64_t layer_matrix_elements(const worker::ModelConfig& c, const parallel::ShardSpec& shard) {
  const int64_t heads = 2 * shard.query_heads.size() + 2 * shard.kv_heads.size();  // q and o, k and v
  return heads * c.head_size * c.hidden + 3 * shard.mlp.size() * c.hidden;
}

// Matrices in `type`, norms in f32.
int64_t weight_bytes(const worker::ModelConfig& c, const parallel::ShardSpec& shard, DType type) {
  const int64_t layers = shard.layers.size();
  const int64_t table = shard.vocab.size() * c.hidden;
  int64_t matrices = layers * layer_matrix_elements(c, shard);
  int64_t norms = layers * 2 * c.hidden;
  if (shard.first_stage) matrices += table;
  if (shard.last_stage) {
    norms += c.hidden;
    if (!(shard.first_stage && c.tied_embeddings)) matrices += table;
  }
  return matrices * static_cast<int64_t>(size_of(type)) + norms * static_cast<int64_t>(sizeof(float));
}

}  // namespace

ShardPlan plan_shards(const worker::ModelConfig& config, const parallel::Topology& topology, DType weights, DType cache) {
  ShardPlan plan;
  for (int rank = 0; rank < topology.replica_ranks(); ++rank) {
    RankPlan entry{.rank = rank, .place = parallel::place_of(topology, rank), .shard = {}};
    parallel::ShardResult result = parallel::shard(topology, entry.place, worker::network_shape(config));
    if (!result.error.empty()) return {.ranks = {}, .error = result.error};
    entry.shard = result.spec;
    entry.weight_bytes = weight_bytes(config, entry.shard, weights);
    entry.cache_bytes_per_token = 2 * entry.shard.layers.size() * entry.shard.kv_heads.size() * config.head_size * static_cast<int64_t>(size_of(cache));
    plan.ranks.push_back(entry);
  }
  return plan;
}

int64_t parameters_of(const worker::ModelConfig& c) {
  const parallel::ShardSpec whole{.layers = {0, c.layers}, .kv_heads = {0, c.kv_heads}, .query_heads = {0, c.query_heads},
                                  .mlp = {0, c.mlp}, .vocab = {0, c.vocab}};
  const int64_t tables = (c.tied_embeddings ? 1 : 2) * c.vocab * c.hidden;
  return c.layers * (layer_matrix_elements(c, whole) + 2 * c.hidden) + tables + c.hidden;
}

std::string human_bytes(int64_t bytes) {
  const char* units[] = {"B", "KiB", "MiB", "GiB", "TiB"};
  auto value = static_cast<double>(bytes);
  size_t unit = 0;
  while (value >= 1024.0 && unit + 1 < std::size(units)) {
    value /= 1024.0;
    ++unit;
  }
  return unit == 0 ? fmt::format("{} B", bytes) : fmt::format("{:.2f} {}", value, units[unit]);
}

}  // namespace accrete::launch
