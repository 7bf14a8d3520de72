// Topology: which rank is which stage, shard and replica, and which layers, heads, MLP columns and vocabulary rows are
// its own. rank = (replica * P + stage) * T + shard: the shards of a stage are neighbours.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace accrete::parallel {

struct Range {
  int64_t begin = 0;
  int64_t end = 0;
  int64_t size() const { return end - begin; }
  bool operator==(const Range&) const = default;
};

struct Topology {
  int tensor = 1;    // T
  int pipeline = 1;  // P
  int data = 1;      // R replicas in the job
  int ranks() const { return tensor * pipeline * data; }
  int replica_ranks() const { return tensor * pipeline; }
  bool operator==(const Topology&) const = default;
};

struct Place {
  int replica = 0;
  int stage = 0;
  int shard = 0;
};
Place place_of(const Topology& topology, int rank);

// The sizes that sharding depends on.
struct NetworkShape {
  int64_t layers = 0, query_heads = 0, kv_heads = 0, mlp = 0, vocab = 0;
};

struct ShardSpec {
  Range layers;    // of this stage
  Range kv_heads;  // of this shard; the query heads are begin*G .. end*G
  Range query_heads;
  Range mlp;
  Range vocab;  // embedding and output rows
  bool first_stage = true;
  bool last_stage = true;
};

// Deals contiguous ranges as evenly as they go (sizes differ by at most one, larger first). The error, when there are
// more shards than KV heads or more stages than layers, names the flag: "--tensor-parallel-size 4: the model has 3 KV
// heads".
struct ShardResult {
  ShardSpec spec;
  std::string error;  // empty: fine
};
ShardResult shard(const Topology& topology, const Place& place, const NetworkShape& network);
Range deal(int64_t items, int parts, int index);
// The same in units of 16 items, where they come in such units and there is one for each part: products on a GPU want such sizes.
Range deal_in_units(int64_t items, int parts, int index);

// Which contiguous KV heads each shard and which contiguous layers each stage gets. A placement that evens out expected
// pages rather than heads (from a measured compression profile) is another function that returns one of these.
struct Placement {
  std::vector<Range> layers_of_stage;    // [P], in order, covering all layers, none empty
  std::vector<Range> kv_heads_of_shard;  // [T], likewise
};
Placement even_placement(const Topology& topology, const NetworkShape& network);
// The same for a placement of the caller's; MLP columns and vocabulary rows are always dealt.
ShardResult shard(const Topology& topology, const Place& place, const NetworkShape& network,
                  const Placement& placement);

}  // namespace accrete::parallel
