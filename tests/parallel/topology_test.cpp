#include "parallel/topology.h"

#include <gtest/gtest.h>

namespace accrete::parallel {

namespace {

const NetworkShape kSmolLM2{30, 9, 3, 1536, 49152};

TEST(Topology, ShardsOfAStageAreNeighbours) {
  const Topology topology{2, 3, 2};
  EXPECT_EQ(topology.ranks(), 12);
  for (int rank = 0; rank < topology.ranks(); ++rank) {
    const Place place = place_of(topology, rank);
    EXPECT_EQ((place.replica * topology.pipeline + place.stage) * topology.tensor + place.shard, rank);
  }
  EXPECT_EQ(place_of(topology, 7).replica, 1);
  EXPECT_EQ(place_of(topology, 7).stage, 0);
  EXPECT_EQ(place_of(topology, 7).shard, 1);
}

TEST(Topology, DealsEvenlyLargerFirst) {
  for (int64_t items = 0; items < 40; ++items) {
    for (int parts = 1; parts <= 9; ++parts) {
      int64_t next = 0;
      for (int index = 0; index < parts; ++index) {
        const Range range = deal(items, parts, index);
        EXPECT_EQ(range.begin, next);
        EXPECT_EQ(range.size(), items / parts + (index < items % parts ? 1 : 0));
        next = range.end;
      }
      EXPECT_EQ(next, items);
    }
  }
}

TEST(Topology, QueryHeadsFollowUnevenKvHeads) {
  const Topology topology{2, 1, 1};
  const ShardSpec first = shard(topology, {0, 0, 0}, kSmolLM2).spec;
  const ShardSpec second = shard(topology, {0, 0, 1}, kSmolLM2).spec;
  EXPECT_EQ(first.kv_heads, (Range{0, 2}));
  EXPECT_EQ(second.kv_heads, (Range{2, 3}));
  EXPECT_EQ(first.query_heads, (Range{0, 6}));
  EXPECT_EQ(second.query_heads, (Range{6, 9}));
  EXPECT_EQ(first.mlp, (Range{0, 768}));
  EXPECT_EQ(second.vocab, (Range{24576, 49152}));
}

TEST(Topology, StagesKnowTheirEnds) {
  const Topology topology{1, 4, 1};
  int64_t next = 0;
  for (int stage = 0; stage < 4; ++stage) {
    const ShardSpec spec = shard(topology, {0, stage, 0}, kSmolLM2).spec;
    EXPECT_EQ(spec.layers.begin, next);
    EXPECT_EQ(spec.first_stage, stage == 0);
    EXPECT_EQ(spec.last_stage, stage == 3);
    next = spec.layers.end;
  }
  EXPECT_EQ(next, 30);
}

TEST(Topology, APlacementOfOnesOwnIsFollowed) {
  const Topology topology{2, 2, 1};
  const Placement placement{{{0, 25}, {25, 30}}, {{0, 1}, {1, 3}}};
  const ShardSpec spec = shard(topology, {0, 1, 1}, kSmolLM2, placement).spec;
  EXPECT_EQ(spec.layers, (Range{25, 30}));
  EXPECT_EQ(spec.kv_heads, (Range{1, 3}));
  EXPECT_EQ(spec.query_heads, (Range{3, 9}));
}

TEST(Topology, ErrorsNameTheFlag) {
  const auto error = [](const Topology& topology) { return shard(topology, {}, kSmolLM2).error; };
  EXPECT_EQ(error({4, 1, 1}), "--tensor-parallel-size 4: the model has 3 KV heads");
  EXPECT_EQ(error({1, 31, 1}), "--pipeline-parallel-size 31: the model has 30 layers");
  EXPECT_EQ(error({0, 1, 1}), "--tensor-parallel-size 0: must be at least 1");
  EXPECT_EQ(error({1, -2, 1}), "--pipeline-parallel-size -2: must be at least 1");
  EXPECT_EQ(error({1, 1, 0}), "--data-parallel-size 0: must be at least 1");
  EXPECT_EQ(error({3, 30, 7}), "");
}

}  // namespace

}  // namespace accrete::parallel
