#include <gtest/gtest.h>

#include "launch/inspect/cache_table.h"
#include "launch/inspect/shard_plan.h"

namespace accrete::launch {
namespace {

worker::ModelConfig small_config() {
  worker::ModelConfig config;
  config.hidden = 12;
  config.mlp = 20;
  config.layers = 5;
  config.query_heads = 6;
  config.kv_heads = 3;
  config.head_size = 4;
  config.vocab = 10;
  config.max_position = 64;
  return config;
}

TEST(PlanShards, TheShardsAddUpToTheModel) {
  const worker::ModelConfig config = small_config();
  const ShardPlan whole = plan_shards(config, {}, DType::f32, DType::f32);
  const ShardPlan cut = plan_shards(config, {.tensor = 2, .pipeline = 2}, DType::f32, DType::f32);
  ASSERT_EQ(whole.ranks.size(), 1u);
  ASSERT_EQ(cut.ranks.size(), 4u);
  EXPECT_EQ(whole.ranks[0].weight_bytes, parameters_of(config) * 4);
  EXPECT_EQ(whole.ranks[0].cache_bytes_per_token, 2 * 5 * 3 * 4 * 4);
  int64_t cache = 0;
  for (const RankPlan& rank : cut.ranks) cache += rank.cache_bytes_per_token;
  EXPECT_EQ(cache, whole.ranks[0].cache_bytes_per_token);
}

TEST(PlanShards, TooManyRanksNameTheFlag) {
  EXPECT_NE(plan_shards(small_config(), {.tensor = 4}, DType::f32, DType::f32).error.find("--tensor-parallel-size"), std::string::npos);
  EXPECT_NE(plan_shards(small_config(), {.pipeline = 6}, DType::f32, DType::f32).error.find("--pipeline-parallel-size"), std::string::npos);
}

TEST(HumanBytes, PicksTheUnit) {
  EXPECT_EQ(human_bytes(1000), "1000 B");
  EXPECT_EQ(human_bytes(1536), "1.50 KiB");
  EXPECT_EQ(human_bytes(3ll << 30), "3.00 GiB");
}

struct Report {
  rpc::ModelCard card;
  rpc::ReplicaShape shape;
  rpc::ReplicaReport report;

  // Two layers of two heads on two ranks (tensor parallel), 4 slots a page, 100 bytes a page, 10 pages a rank.
  Report() {
    card.set_layers(2);
    card.set_kv_heads(2);
    shape.set_page_slots(4);
    for (uint32_t rank = 0; rank < 2; ++rank) {
      rpc::RankShape* entry = shape.add_ranks();
      entry->set_rank(rank);
      entry->set_pages_total(10);
      entry->set_page_bytes(100);
      entry->set_layer_end(2);
      entry->set_kv_head_begin(rank);
      entry->set_kv_head_end(rank + 1);
    }
    report.set_cached_tokens(9);
    for (double slots : {9.0, 4.0, 5.0, 1.0}) report.add_head_slots(slots);  // pages 3, 1, 2, 1
    report.set_kv_bytes_in_use(700);
    for (uint32_t rank = 0; rank < 2; ++rank) {
      rpc::RankReport* entry = report.add_ranks();
      entry->set_rank(rank);
      entry->set_pages_free(rank == 0 ? 5 : 8);
    }
  }
};

TEST(CacheTable, BothWaysOfCountingAgree) {
  const Report r;
  const CacheTable table = cache_table(r.card, r.shape, r.report);
  EXPECT_EQ(table.pages_by_tables, 7);
  EXPECT_EQ(table.pages_by_pools, 7);
  EXPECT_EQ(table.bytes_by_tables, 700);
  EXPECT_EQ(table.bytes_at_cr_1, 4 * 3 * 100);
  EXPECT_TRUE(table.agrees());
  EXPECT_NE(to_text(table).find("accounting agrees"), std::string::npos);
}

TEST(CacheTable, ALostPageIsSeen) {
  Report r;
  r.report.mutable_ranks(1)->set_pages_free(7);
  const CacheTable table = cache_table(r.card, r.shape, r.report);
  EXPECT_FALSE(table.agrees());
  EXPECT_NE(to_text(table).find("DISAGREES"), std::string::npos);
}

}  // namespace
}  // namespace accrete::launch
