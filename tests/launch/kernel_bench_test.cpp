#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>
#include <set>

#include "kernels/dmc/decide.h"
#include "launch/bench/kernels/costs.h"
#include "launch/bench/kernels/draws.h"
#include "launch/bench/kernels/model_shape.h"
#include "launch/bench/kernels/table.h"
#include "launch/cli/command_line.h"
#if defined(ACCRETE_CUDA)
#include "kernels/device/device_memory.h"
#endif

namespace accrete::launch {
namespace {

ModelShape shape_of(const std::string& name) { return model_shapes(std::vector<std::string>{name}).front(); }

TEST(KernelCosts, CountEachByteOnce) {
  EXPECT_EQ(rms_norm_cost(3, 8).bytes, 2 * (4 * 3 * 8 + 8));
  EXPECT_EQ(silu_mul_cost(3, 8).bytes, 2 * 3 * 3 * 8);
  EXPECT_EQ(embedding_cost(3, 8).bytes, 3 * (4 + 2 * 2 * 8));
  EXPECT_EQ(rope_angles_cost(3, 128).bytes, 3 * (4 + 2 * 64 * 4));
  EXPECT_EQ(rms_norm_fp8_cost(3, 16).bytes, 3 * (16 * 7 + 2 * 4) + 16 * 2 * 4);
  EXPECT_EQ(silu_mul_fp8_cost(3, 16).bytes, 3 * (16 * 5 + 2 * 4) + 2 * 16 * 4);
  EXPECT_EQ(quantize_fp8_cost(3, 16).bytes, 3 * (16 * 3 + 4));
  EXPECT_EQ(apply_scales_cost(3, 16).bytes, 3 * 16 * 4 + (3 + 16) * 4);
  EXPECT_EQ(join_logits_cost(3, 8).bytes, 2 * 4 * 3 * 8);
  EXPECT_EQ(sample_cost(256, 32000).bytes, 256.0 * 32000 * 4);
}

TEST(KernelCosts, OfProducts) {
  const Cost bf16 = linear_cost({.tokens = 2, .outputs = 8, .depth = 16});
  EXPECT_EQ(bf16.bytes, 2 * (8 * 16 + 2 * 16 + 2 * 8));
  EXPECT_EQ(bf16.flops, 2 * 2 * 8 * 16);
  EXPECT_EQ(bf16.math, MathLimit::bf16);
  const Cost fp8 = linear_cost({.tokens = 2, .outputs = 8, .depth = 16, .weight_bytes = kFp8, .out_bytes = 4});
  EXPECT_EQ(fp8.bytes, 8 * 16 + 2 * 16 + 4 * 2 * 8);
  EXPECT_EQ(fp8.math, MathLimit::fp8);
}

TEST(KernelCosts, OfAttention) {
  const ModelShape model = shape_of("70b");
  EXPECT_EQ(decode_attention_cost(model, 1000).bytes, 1000 * 512);
  EXPECT_EQ(decode_attention_cost(model, 1000).flops, 1000.0 * 4 * 128 * 8);  // every query of the group meets the slot
  const Cost prompt = prompt_attention_cost(shape_of("7b"), {.earlier = 0, .tokens = 4096, .slots = 10});
  EXPECT_EQ(prompt.flops, 4.0 * 4096 * 4096 / 2 * 128 * 32);
  EXPECT_EQ(prompt.bytes, 4096.0 * 2 * 128 * (32 + 32 + 32 + 32) + 10 * 512);
  const Cost chunk = prompt_attention_cost(shape_of("7b"), {.earlier = 100, .tokens = 10, .slots = 0});
  EXPECT_EQ(chunk.flops, 4.0 * (100 * 10 + 10 * 10 / 2) * 128 * 32);
}

TEST(KernelCosts, OfUpdates) {
  const ModelShape model = shape_of("70b-tp8");  // 8 query heads, 1 KV head: 10 vectors of 128 in, 8 out
  const Cost decode = update_cost(model, {.tokens = 2, .ring_reads = 7, .ring_writes = 2, .slot_writes = 2});
  EXPECT_EQ(decode.bytes, 2 * (10 * 256 + 8 * 256 + 512 + 4) + 9 * (512 + 4) + 2 * 512);
  const Cost prompt = update_cost(model, {.tokens = 2, .own_entries = true});
  EXPECT_EQ(prompt.bytes, 2 * (10 * 256 + 8 * 256 + 512 + 4 + 512 + 8));
}

const Ceilings kCeilings{.copy_gb_s = 2000, .read_gb_s = 4000, .bf16_tflop_s = 800, .fp8_tflop_s = 1600};

Row row_of(const Cost& cost, double us) { return {{"k", "7b", "B=1"}, cost, {us, us, us}, ""}; }

TEST(KernelRows, AreHeldAgainstTheNearerCeiling) {
  const Row copied = row_of({.bytes = 2e6}, 2);  // 1 us at the copy's speed
  EXPECT_DOUBLE_EQ(percent_of_ceiling(copied, kCeilings), 50);
  EXPECT_STREQ(floor_of(copied.cost, kCeilings).by, "copy");
  EXPECT_DOUBLE_EQ(copied.gb_s(), 1000);
  const Row read = row_of({.bytes = 2e6, .memory = MemoryLimit::read}, 2);
  EXPECT_DOUBLE_EQ(percent_of_ceiling(read, kCeilings), 25);
  const Row computed = row_of({.bytes = 2e6, .flops = 8e9, .memory = MemoryLimit::read}, 20);  // 10 us of the product's rate
  EXPECT_DOUBLE_EQ(percent_of_ceiling(computed, kCeilings), 50);
  EXPECT_STREQ(floor_of(computed.cost, kCeilings).by, "bf16");
  EXPECT_DOUBLE_EQ(computed.tflop_s(), 400);
  const Row narrow = row_of({.flops = 8e9, .math = MathLimit::fp8}, 20);
  EXPECT_DOUBLE_EQ(percent_of_ceiling(narrow, kCeilings), 25);
}

TEST(KernelTable, LinesAreAligned) {
  KernelReport report{.device = "a GPU", .ceilings = kCeilings, .rows = {}, .failures = {}};
  const std::string head = table_head(report);
  const std::string names = head.substr(head.rfind('\n') + 1);
  const std::string small = table_line(row_of({.bytes = 10}, 1.234), kCeilings), large = table_line(row_of({.bytes = 3e12, .flops = 5e14}, 123456), kCeilings);
  // Every figure ends where its heading does.
  for (const char* name : {" us ", " MB ", " GFLOP ", " GB/s ", " TFLOP/s ", " % "}) {
    const size_t end = names.find(name) + std::string(name).size() - 1;
    for (const std::string& line : {small, large}) {
      ASSERT_LT(end, line.size());
      EXPECT_EQ(line[end], ' ') << name << ": " << line;
      EXPECT_NE(line[end - 1], ' ') << name << ": " << line;
    }
  }
  EXPECT_NE(small.find(" 1.23 "), std::string::npos) << small;
  EXPECT_NE(head.find("a GPU"), std::string::npos);
  EXPECT_NE(head.find("random values"), std::string::npos);
  EXPECT_NE(head.find("copy 2000 GB/s"), std::string::npos);
}

TEST(KernelTable, JsonHoldsEverything) {
  KernelReport report{.device = "a GPU", .ceilings = kCeilings, .rows = {row_of({.bytes = 2e6}, 2)}, .failures = {"x"}};
  report.rows.front().note = "noted";
  const nlohmann::json json = to_json(report);
  EXPECT_EQ(json["device"], "a GPU");
  EXPECT_EQ(json["ceilings"]["read_gb_per_s"], 4000);
  ASSERT_EQ(json["rows"].size(), 1u);
  const nlohmann::json& row = json["rows"][0];
  EXPECT_EQ(row["kernel"], "k");
  EXPECT_EQ(row["median_us"], 2);
  EXPECT_EQ(row["bytes"], 2e6);
  EXPECT_EQ(row["percent_of_ceiling"], 50);
  EXPECT_EQ(row["ceiling"], "copy");
  EXPECT_EQ(row["note"], "noted");
  EXPECT_EQ(json["failures"][0], "x");
}

TEST(KernelShapes, AShardIsAnEighth) {
  const ModelShape whole = shape_of("70b"), shard = shape_of("70b-tp8");
  EXPECT_EQ(whole.mlp, 8 * shard.mlp);
  EXPECT_EQ(whole.query_heads, 8 * shard.query_heads);
  EXPECT_EQ(whole.kv_heads, 8 * shard.kv_heads);
  EXPECT_EQ(whole.vocab, 8 * shard.vocab);
  EXPECT_EQ(whole.hidden, shard.hidden);
  EXPECT_EQ(shard.group(), 8);
  EXPECT_EQ(shape_of("7b").qkv_width(), 12288);
}

TEST(KernelDraws, LengthsHaveTheirMeanAndSpread) {
  const std::vector<int32_t> lengths = spread_lengths({.count = 2048, .mean = 1024, .ratio = 8}, 1);
  const double mean = static_cast<double>(std::accumulate(lengths.begin(), lengths.end(), int64_t{0})) / 2048;
  EXPECT_NEAR(mean, 1024, 0.5);  // each is rounded by half at most
  const auto [least, most] = std::minmax_element(lengths.begin(), lengths.end());
  EXPECT_LE(*most, 8 * (*least + 1));
  EXPECT_GT(*most, 6 * *least);
  EXPECT_EQ(lengths, spread_lengths({.count = 2048, .mean = 1024, .ratio = 8}, 1));
  EXPECT_NE(lengths, spread_lengths({.count = 2048, .mean = 1024, .ratio = 8}, 2));
}

TEST(KernelDraws, ShuffledHoldsEveryNumberOnce) {
  std::vector<int32_t> order = shuffled(1000, 3);
  EXPECT_FALSE(std::is_sorted(order.begin(), order.end()));
  std::sort(order.begin(), order.end());
  for (int32_t i = 0; i < 1000; ++i) ASSERT_EQ(order[i], i);
}

TEST(KernelDraws, RatesKeepTheirShareAndAreUneven) {
  for (const int64_t heads : {1, 8, 32, 40}) {
    const std::vector<double> rates = accumulate_rates(heads, 4);
    EXPECT_NEAR(std::accumulate(rates.begin(), rates.end(), 0.0) / static_cast<double>(heads), 0.75, 1e-12);
    EXPECT_EQ(std::set<double>(rates.begin(), rates.end()).size(), static_cast<size_t>(heads));
  }
  EXPECT_EQ(accumulate_rates(8, 1), std::vector<double>(8, 0.0));
}

TEST(KernelDraws, SlotsFollowDecisions) {
  const std::vector<uint8_t> decisions{1, 1, 0, 1, 1, 0};  // three tokens, two heads
  const std::vector<int32_t> expected{0, 4, 1, 4, 1, 5};   // an empty head's first token appends whatever it decides
  EXPECT_EQ(slots_of_tokens(decisions, std::vector<int32_t>{0, 5}), expected);
}

// The decision kernels read from the drawn projections is the drawn one, and weights are those of the sigmoid's middle.
TEST(KernelDraws, ProjectionsSayTheDecisions) {
  const ModelShape model = shape_of("70b-tp8");
  DmcParams dmc;
  dmc.mode = DmcMode::learned;
  dmc.bf16_decision = true;
  const std::vector<uint8_t> decisions = drawn_decisions(50, accumulate_rates(model.kv_heads, 2), 4);
  const std::vector<bf16> qkv = drawn_qkv(model, dmc, decisions);
  ASSERT_EQ(static_cast<int64_t>(qkv.size()), 50 * model.qkv_width());
  for (int64_t t = 0; t < 50; ++t) {
    float importance = 0;
    for (int64_t h = 0; h < 8; ++h) importance += static_cast<float>(qkv[t * model.qkv_width() + (h + 1) * 128 - 1]) / 8;
    const Decision decision = decide_learned(dmc, static_cast<float>(qkv[t * model.qkv_width() + 9 * 128 - 1]), importance);
    EXPECT_EQ(decision.accumulate, decisions[t] == 1);
    EXPECT_GT(decision.weight, 0.1f);
    EXPECT_LT(decision.weight, 0.95f);
  }
}

TEST(KernelDraws, LogitsAreFiniteAndAFewStandOut) {
  const std::vector<float> logits = drawn_logits(4, 32000, 5);
  ASSERT_EQ(logits.size(), 4u * 32000);
  for (int row = 0; row < 4; ++row) {
    const auto begin = logits.begin() + row * 32000;
    EXPECT_TRUE(std::all_of(begin, begin + 32000, [](float logit) { return std::isfinite(logit); }));
    const auto high = std::count_if(begin, begin + 32000, [](float logit) { return logit > 7.0f; });  // beyond the bell's end, 2 * 2 sqrt(3)
    EXPECT_GT(high, 2);
    EXPECT_LE(high, 40);
  }
}

TEST(KernelBench, SaysWhenThereIsNoGpu) {
#if defined(ACCRETE_CUDA)
  if (device_count() > 0) GTEST_SKIP() << "there is a GPU";
#endif
  testing::internal::CaptureStderr();
  const int code = run_command_line({"accrete", "bench", "kernels", "--quick"});
  const std::string error = testing::internal::GetCapturedStderr();
  EXPECT_EQ(code, kExitFailed);
  EXPECT_NE(error.find("accrete bench kernels: error: needs a GPU"), std::string::npos) << error;
}

TEST(KernelBench, BadFlagsAreUsageErrors) {
  testing::internal::CaptureStderr();
  EXPECT_EQ(run_command_line({"accrete", "bench", "kernels", "--model", "7b,8b"}), kExitUsage);
  EXPECT_EQ(run_command_line({"accrete", "bench", "kernels", "--filter", "("}), kExitUsage);
  const std::string errors = testing::internal::GetCapturedStderr();
  EXPECT_NE(errors.find("--model"), std::string::npos);
  EXPECT_NE(errors.find("--filter"), std::string::npos);
}

}  // namespace
}  // namespace accrete::launch
