#include <gtest/gtest.h>

#include "launch/bench/decode/roofline.h"
#include "launch/bench/decode/step_rounds.h"
#include "worker/model/dummy_source.h"

namespace accrete::launch {
namespace {

using std::chrono::milliseconds;

StepRounds::Time at(int ms) { return StepRounds::Time(milliseconds(ms)); }

TEST(StepRounds, OneStageMovesAllInAStep) {
  StepRounds rounds(3);
  EXPECT_FALSE(rounds.take(0, at(1)));
  EXPECT_FALSE(rounds.take(0, at(2)));
  EXPECT_FALSE(rounds.take(1, at(2)));
  EXPECT_FALSE(rounds.take(0, at(3)));
  EXPECT_FALSE(rounds.take(2, at(3)));
  EXPECT_FALSE(rounds.take(1, at(3))) << "of the step in which the last one began";
  for (int step = 4; step < 7; ++step) {
    EXPECT_FALSE(rounds.take(0, at(step)));
    EXPECT_FALSE(rounds.take(1, at(step)));
    EXPECT_TRUE(rounds.take(2, at(step)));
  }
}

TEST(StepRounds, StagesMoveAPartInAStep) {
  StepRounds rounds(4);
  for (size_t i : {0, 1}) EXPECT_FALSE(rounds.take(i, at(1)));
  for (size_t i : {2, 3}) EXPECT_FALSE(rounds.take(i, at(2)));
  int ended = 0;
  for (int step = 3; step < 9; ++step) {
    const size_t first = step % 2 == 1 ? 0 : 2;
    ended += rounds.take(first, at(step)) ? 1 : 0;
    const bool last = rounds.take(first + 1, at(step));
    EXPECT_EQ(last, step % 2 == 0) << step;
    ended += last ? 1 : 0;
  }
  EXPECT_EQ(ended, 3);
}

// Llama 2 7B by hand: 6.476e9 parameters in layers, 131e6 in the vocabulary's matrix, 512 KiB of keys and values a token.
TEST(DecodeLimit, OfLlama2OnOneGpu) {
  const worker::ModelConfig model = worker::dummy_config("llama-2-7b");
  EXPECT_EQ(layer_parameters(model), 6476005376);
  EXPECT_EQ(kv_bytes_per_slot(model), 524288);
  const StepLimit limit = decode_limit(model, {.batch = 10, .slots = 3000}, {.bandwidth = 3e12, .kernel_gap = 1e-6});
  EXPECT_NEAR(limit.weights, 4.405e-3, 1e-6);
  EXPECT_NEAR(limit.cache, 5.243e-3, 1e-6);
  EXPECT_NEAR(limit.gaps, 0.262e-3, 1e-9);
  EXPECT_EQ(limit.all_reduce, 0);
  EXPECT_NEAR(limit.total(), limit.weights + limit.cache + limit.logits + limit.gaps, 1e-12);
}

// Stages read all weights once a round, each its own part of the cache.
TEST(DecodeLimit, ShardsAndStagesDivideTheWork) {
  const worker::ModelConfig model = worker::dummy_config("llama-2-70b");
  const StepLimit one = decode_limit(model, {.batch = 64, .slots = 3000}, {});
  const StepLimit shards = decode_limit(model, {.batch = 64, .slots = 3000, .tensor = 4}, {});
  const StepLimit stages = decode_limit(model, {.batch = 64, .slots = 3000, .pipeline = 4}, {});
  EXPECT_DOUBLE_EQ(shards.weights, one.weights / 4);
  EXPECT_DOUBLE_EQ(shards.cache, one.cache / 4);
  EXPECT_GT(shards.all_reduce, 160 * 7e-6);
  EXPECT_DOUBLE_EQ(stages.weights, one.weights);
  EXPECT_DOUBLE_EQ(stages.products, one.products / 4);
  EXPECT_DOUBLE_EQ(stages.cache, one.cache / 4);
  EXPECT_EQ(stages.all_reduce, 0);
}

}  // namespace
}  // namespace accrete::launch
