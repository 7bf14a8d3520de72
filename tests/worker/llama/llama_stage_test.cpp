// What must hold of one stage whatever the weights: how a sequence is cut into steps does not matter, DMC that only
// appends is the plain cache, a checkpoint that does not fit is refused by name.
#include "worker/model/llama_stage.h"

#include <gtest/gtest.h>

#include "parallel/host_group.h"

#include "tests/worker/llama/llama_rig.h"
#include "tests/worker/llama/seeded_source.h"

namespace accrete::worker {

namespace {

constexpr int64_t kLength = 75;

std::vector<int32_t> prompt() {
  return seeded_prompt("stage", kLength, 96);
}

LogitRows logits_of(const TensorSource& source, const RigOptions& options) {
  LlamaRig rig(source, options);
  return rig.all_logits(prompt());
}

void expect_within_bound(const ModelConfig& config, const LogitRows& found, const LogitRows& wanted) {
  EXPECT_LT(largest_difference(found, wanted), reordering_bound(config, scale_of(wanted), 4));
}

TEST(LlamaStage, ChunksAndDecodesGiveTheSameLogits) {
  ModelConfig config = small_config(4, 6, 2);
  for (DmcMode mode : {DmcMode::off, DmcMode::synthetic, DmcMode::learned}) {
    for (int window : {0, 12}) {
      config.dmc = DmcConfig{4.0, window, 0.25};
      const SeededSource source(config);
      RigOptions options;
      if (mode == DmcMode::learned) options.dmc = learned_dmc(config, DType::f32);
      options.dmc.mode = mode;
      options.dmc.window = window;
      options.dmc.synthetic_cr = 3;
      const LogitRows whole = logits_of(source, options);
      for (int64_t chunk : {1, 2, 13, 64}) {
        SCOPED_TRACE(fmt::format("mode {} window {} chunk {}", static_cast<int>(mode), window, chunk));
        options.chunk = chunk;
        expect_within_bound(config, logits_of(source, options), whole);
      }
    }
  }
}

TEST(LlamaStage, SequencesOfAStepDoNotMix) {
  const ModelConfig config = small_config(3, 4, 2);
  const SeededSource source(config);
  RigOptions options;
  const std::vector<std::vector<int32_t>> prompts{seeded_prompt("a", 20, 96), seeded_prompt("b", 3, 96),
                                                  seeded_prompt("c", 50, 96)};
  options.chunk = 7;
  LlamaRig together(source, options);
  const LlamaRig::Greedy mixed = together.greedy(prompts, 24);
  for (size_t i = 0; i < prompts.size(); ++i) {
    LlamaRig alone(source, options);
    const LlamaRig::Greedy own = alone.greedy({prompts[i]}, 24);
    EXPECT_EQ(own.tokens[0], mixed.tokens[i]);
    expect_within_bound(config, own.logits[0], mixed.logits[i]);
  }
}

TEST(LlamaStage, OnlyTheLogitsAskedForComeInTheirOrder) {
  const SeededSource source(small_config(2, 4, 2));
  const LogitRows all = logits_of(source, {});
  RigOptions options;
  LlamaRig rig(source, options);
  RigStep step;
  step.add(0, 0, prompt(), RigStep::Want::none);
  step.logit_tokens = {40, 3, 74, 3};
  const LogitRows some = rig.step(step);
  ASSERT_EQ(some.size(), 4u);
  for (size_t i = 0; i < some.size(); ++i)
    expect_within_bound(source.config(), {some[i]}, {all[static_cast<size_t>(step.logit_tokens[i])]});
  RigStep more;
  more.add(0, kLength, std::vector<int32_t>{5}, RigStep::Want::none);
  EXPECT_TRUE(rig.step(more).empty());
}

TEST(LlamaStage, DecisionsThatOnlyAppendAreThePlainCache) {
  const SeededSource source(small_config(3, 6, 2));
  RigOptions options;
  const LogitRows plain = logits_of(source, options);
  options.dmc.mode = DmcMode::synthetic;
  options.dmc.synthetic_cr = 1;
  EXPECT_EQ(largest_difference(logits_of(source, options), plain), 0.0);
}

// Learned decisions zero the last component of q and k before and after RoPE, which turns it together with component
// D/2 - 1. Where the projections make both zero anyway, a network that never accumulates must equal the plain one.
TEST(LlamaStage, LearnedDecisionsThatOnlyAppendAreThePlainCache) {
  ModelConfig config = small_config(3, 6, 2);
  config.dmc = DmcConfig{4.0, 12, 5.0};
  SeededSource source(config);
  source.zero_row = [](std::string_view name, int64_t row) {
    const bool projection = name.ends_with("q_proj.weight") || name.ends_with("k_proj.weight");
    return projection && (row % 64 == 63 || row % 64 == 31);
  };
  RigOptions options;
  const LogitRows plain = logits_of(source, options);
  for (int window : {0, 12}) {
    options.dmc = learned_dmc(config, DType::f32);
    options.dmc.window = window;
    LlamaRig rig(source, options);
    expect_within_bound(config, rig.all_logits(prompt()), plain);
    EXPECT_EQ(rig.slot_counts(0), std::vector<int32_t>(3 * 2, kLength));
  }
}

TEST(LlamaStage, TakesItsDmcFromTheCheckpoint) {
  ModelConfig config = small_config(1, 2, 1);
  EXPECT_EQ(learned_dmc(config, DType::bf16).mode, DmcMode::off);
  config.dmc = DmcConfig{8.0, 3, 4.5};
  const DmcParams dmc = learned_dmc(config, DType::bf16);
  EXPECT_EQ(dmc.mode, DmcMode::learned);
  EXPECT_EQ(dmc.window, 3);
  EXPECT_EQ(dmc.offset, 4.5f);
  EXPECT_TRUE(dmc.bf16_decision);
  EXPECT_FALSE(learned_dmc(config, DType::f32).bf16_decision);
}

std::string refusal(const TensorSource& source) {
  try {
    LlamaRig rig(source, {});
  } catch (const ModelError& error) {
    return error.what();
  }
  return "";
}

TEST(LlamaStage, RefusesACheckpointThatDoesNotFit) {
  SeededSource missing(small_config(2, 4, 2));
  missing.forget("model.layers.1.mlp.up_proj.weight");
  EXPECT_NE(refusal(missing).find("model.layers.1.mlp.up_proj.weight is missing"), std::string::npos)
      << refusal(missing);
  SeededSource misshapen(small_config(2, 4, 2));
  misshapen.reshape("model.layers.0.self_attn.k_proj.weight", {64, 96});
  EXPECT_NE(refusal(misshapen).find("k_proj.weight is [64, 96], but the model's config makes it [128, 96]"),
            std::string::npos)
      << refusal(misshapen);
}

class FailingSource : public SeededSource {
 public:
  using SeededSource::SeededSource;
  void read(std::string_view name, const Slice& slice, DType dtype, void* dst) const override {
    if (name == "model.layers.1.mlp.down_proj.weight") throw ModelError("disk error in down_proj");
    SeededSource::read(name, slice, dtype, dst);
  }
};

TEST(LlamaStage, AnErrorWhileReadingArrives) {
  EXPECT_EQ(refusal(FailingSource(small_config(2, 4, 2))), "disk error in down_proj");
}

TEST(LlamaStage, TiedEmbeddingsShareMemoryAndProgressReachesTheTotal) {
  ModelConfig config = small_config(1, 2, 1);
  const auto load = [&](bool tied, int64_t* done, int64_t* total) {
    config.tied_embeddings = tied;
    const SeededSource source(config);
    ThreadPool pool(2);
    const auto alone = parallel::make_single();
    LlamaStageOptions options;
    options.progress = [=](int64_t now, int64_t all) {
      EXPECT_GT(now, *done);
      *done = now;
      *total = all;
    };
    const parallel::ShardSpec whole = parallel::shard({}, {}, network_shape(config)).spec;
    CpuStageDevice device(pool);
    const auto group = parallel::make_host_group(*alone);
    return LlamaStage(source, whole, options, device, *group).weights().bytes();
  };
  int64_t done = 0, total = 0, done_tied = 0, total_tied = 0;
  const int64_t apart = load(false, &done, &total);
  const int64_t tied = load(true, &done_tied, &total_tied);
  const int64_t once = config.vocab * config.hidden * 2;  // 96 rows are no padding
  EXPECT_GE(apart - tied, once);
  EXPECT_LT(apart - tied, once + 512) << "places begin at multiples of 256";
  EXPECT_GT(done_tied, 0);
  EXPECT_EQ(done, total);
  EXPECT_EQ(done_tied, total_tied);
}

}  // namespace

}  // namespace accrete::worker
