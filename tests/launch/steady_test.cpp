#include "launch/bench/steady.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "launch/cli/command_line.h"

namespace accrete::launch {
namespace {

SteadyLoad load_of(int64_t running, int64_t step_tokens) {
  return {.running = running, .input_len = 40, .output_len = 60, .followers = 20, .step_tokens = step_tokens, .vocab = 100, .seed = 1};
}

TEST(Steady, SequencesAreSpreadOverTheirLives) {
  const SteadyLoad load = load_of(8, 64);  // 8 sequences of 70 tokens and 64 a step: in after 9 steps
  const std::vector<BenchPrompt> prompts = steady_prompts(load);
  ASSERT_EQ(prompts.size(), 28u);
  for (size_t i = 0; i < 8; ++i) {
    EXPECT_TRUE(prompts[i].pretend);
    EXPECT_EQ(static_cast<int64_t>(prompts[i].tokens.size()) + prompts[i].output_len, load.input_len + load.output_len);
    EXPECT_GT(prompts[i].output_len, 10);
    if (i > 0) EXPECT_NEAR(static_cast<double>(prompts[i].output_len - prompts[i - 1].output_len), 51.0 / 8, 1.0);
  }
  for (size_t i = 8; i < prompts.size(); ++i) {
    EXPECT_FALSE(prompts[i].pretend);
    EXPECT_EQ(prompts[i].tokens.size(), 40u);
    EXPECT_EQ(prompts[i].output_len, 60);
  }
}

TEST(Steady, RefusesWhatWouldEndBeforeAllAreIn) { EXPECT_THROW(steady_prompts(load_of(64, 64)), UsageError); }

worker::EngineOptions tiny_options() {
  worker::EngineOptions options;
  options.model = "tiny";
  options.load_format = "dummy";
  options.device = "cpu";
  options.max_model_len = 128;
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 64;
  options.kv_cache_memory_bytes = 64 << 20;
  return options;
}

TEST(Steady, OneFollowerIsTooFew) {
  SteadyLoad load = load_of(8, 64);
  load.followers = 1;
  OfflineEngine engine(tiny_options());
  load.vocab = engine.model().vocab_size();
  EXPECT_THROW(measure_steady(engine, steady_prompts(load), load, 1.0), std::runtime_error);
}

TEST(Steady, PromptsAndOutputsKeepTheirRatio) {
  SteadyLoad load = load_of(8, 64);
  load.followers = 4000;
  OfflineEngine engine(tiny_options());
  load.vocab = engine.model().vocab_size();
  const SteadyRates rates = measure_steady(engine, steady_prompts(load), load, 1.0);
  EXPECT_FALSE(rates.ran_dry);
  EXPECT_GE(rates.seconds, 1.0);
  EXPECT_GT(rates.output_tokens, 60);
  EXPECT_LE(rates.output_tokens, 8 * rates.iterations);
  // Each request brings 40 tokens and takes 60; at either end of the window eight are under way.
  EXPECT_NEAR(static_cast<double>(rates.prompt_tokens) / 40, static_cast<double>(rates.output_tokens) / 60, 9.0);
}

}  // namespace
}  // namespace accrete::launch
