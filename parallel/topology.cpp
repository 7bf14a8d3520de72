#include "parallel/topology.h"

#include <fmt/format.h>

#include <algorithm>

#include "kernels/check.h"

namespace accrete::parallel {

namespace {

// Empty, or why a size of this topology cannot be dealt.
std::string unfit(const Topology& topology, const NetworkShape& network) {
  const auto below_one = [](const char* flag, int value) {
    return fmt::format("{} {}: must be at least 1", flag, value);
  };
  if (topology.tensor < 1) return below_one("--tensor-parallel-size", topology.tensor);
  if (topology.pipeline < 1) return below_one("--pipeline-parallel-size", topology.pipeline);
  if (topology.data < 1) return below_one("--data-parallel-size", topology.data);
  const auto too_many = [&](const char* what, int64_t items) {
    return fmt::format("--tensor-parallel-size {}: the model has {} {}", topology.tensor, items, what);
  };
  if (topology.tensor > network.kv_heads) return too_many("KV heads", network.kv_heads);
  if (topology.tensor > network.mlp) return too_many("MLP columns", network.mlp);
  if (topology.tensor > network.vocab) return too_many("vocabulary rows", network.vocab);
  if (topology.pipeline > network.layers)
    return fmt::format("--pipeline-parallel-size {}: the model has {} layers", topology.pipeline, network.layers);
  return "";
}

}  // namespace

Place place_of(const Topology& topology, int rank) {
  CHECK(rank >= 0 && rank < topology.ranks(), rank, topology.ranks());
  const int shard = rank % topology.tensor;
  const int stage = rank / topology.tensor % topology.pipeline;
  return {rank / topology.replica_ranks(), stage, shard};
}

Range deal(int64_t items, int parts, int index) {
  CHECK(parts > 0 && index >= 0 && index < parts, parts, index);
  const int64_t least = items / parts;
  const int64_t larger = items % parts;
  const int64_t begin = index * least + std::min<int64_t>(index, larger);
  return {begin, begin + least + (index < larger ? 1 : 0)};
}

Range deal_in_units(int64_t items, int parts, int index) {
  constexpr int64_t kUnit = 16;
  if (items % kUnit != 0 || items / kUnit < parts) return deal(items, parts, index);
  const Range units = deal(items / kUnit, parts, index);
  return {units.begin * kUnit, units.end * kUnit};
}

ShardResult shard(const Topology& topology, const Place& place, const NetworkShape& network) {
  return shard(topology, place, network, even_placement(topology, network));
}

Placement even_placement(const Topology& topology, const NetworkShape& network) {
  Placement placement;
  for (int stage = 0; stage < topology.pipeline; ++stage)
    placement.layers_of_stage.push_back(deal(network.layers, topology.pipeline, stage));
  for (int shard = 0; shard < topology.tensor; ++shard)
    placement.kv_heads_of_shard.push_back(deal(network.kv_heads, topology.tensor, shard));
  return placement;
}

ShardResult shard(const Topology& topology, const Place& place, const NetworkShape& network,
                  const Placement& placement) {
  ShardResult result;
  result.error = unfit(topology, network);
  if (!result.error.empty()) return result;
  CHECK(network.query_heads % network.kv_heads == 0, network.query_heads, network.kv_heads);
  const int64_t group = network.query_heads / network.kv_heads;
  ShardSpec& spec = result.spec;
  spec.layers = placement.layers_of_stage.at(place.stage);
  spec.kv_heads = placement.kv_heads_of_shard.at(place.shard);
  spec.query_heads = {spec.kv_heads.begin * group, spec.kv_heads.end * group};
  spec.mlp = deal_in_units(network.mlp, topology.tensor, place.shard);
  spec.vocab = deal_in_units(network.vocab, topology.tensor, place.shard);
  spec.first_stage = place.stage == 0;
  spec.last_stage = place.stage == topology.pipeline - 1;
  return result;
}

}  // namespace accrete::parallel
