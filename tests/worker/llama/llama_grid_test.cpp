// The same network over every grid of tensor shards and pipeline stages, ranks as threads.
#include <gtest/gtest.h>

#include <cstdlib>

#include "tests/worker/llama/llama_rig.h"
#include "tests/worker/llama/seeded_source.h"

namespace accrete::worker {

namespace {

using parallel::Topology;

const std::vector<Topology> kGrid{{2, 1, 1}, {3, 1, 1}, {1, 2, 1}, {1, 3, 1}, {2, 2, 1}, {3, 2, 1}};

std::string name_of(const Topology& topology) {
  return fmt::format("{}x{}", topology.tensor, topology.pipeline);
}

struct GridRun {
  LlamaRig::Greedy greedy;
  std::vector<std::vector<int32_t>> slots;  // by sequence, [L, Hkv]
};

struct GridCase {
  const TensorSource& source;
  std::vector<std::vector<int32_t>> prompts;
  int64_t new_tokens = 48;
  RigOptions options;
};

GridRun run(const GridCase& grid, const Topology& topology) {
  RigOptions options = grid.options;
  options.topology = topology;
  options.sequences = static_cast<int64_t>(grid.prompts.size());
  LlamaRig rig(grid.source, options);
  GridRun result{rig.greedy(grid.prompts, grid.new_tokens), {}};
  for (int32_t i = 0; i < options.sequences; ++i) result.slots.push_back(rig.slot_counts(i));
  return result;
}

// Tokens and slots are identical everywhere, logits bit-equal without tensor sharding and within the bound with it.
void expect_same_over_grid(const GridCase& grid) {
  const GridRun whole = run(grid, {1, 1, 1});
  for (const Topology& topology : kGrid) {
    const GridRun parted = run(grid, topology);
    EXPECT_EQ(parted.greedy.tokens, whole.greedy.tokens) << name_of(topology);
    EXPECT_EQ(parted.slots, whole.slots) << name_of(topology);
    double largest = 0;
    for (size_t i = 0; i < grid.prompts.size(); ++i) {
      const double difference = largest_difference(parted.greedy.logits[i], whole.greedy.logits[i]);
      const double bound = reordering_bound(grid.source.config(), scale_of(whole.greedy.logits[i]), 4);
      EXPECT_LE(difference, topology.tensor == 1 ? 0.0 : bound) << name_of(topology) << " prompt " << i;
      largest = std::max(largest, difference);
    }
    testing::Test::RecordProperty("difference_" + name_of(topology), fmt::format("{:.3g}", largest));
  }
}

std::vector<std::vector<int32_t>> seeded_prompts(int64_t vocab) {
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t length : {5, 33, 1, 18})
    prompts.push_back(seeded_prompt("prompt " + std::to_string(length), length, vocab));
  return prompts;
}

// Three KV heads, so that two shards get two and one; three query heads to each.
ModelConfig grid_config() {
  return small_config(6, 9, 3);
}

TEST(LlamaGrid, PlainCache) {
  const SeededSource source(grid_config());
  GridCase grid{source, seeded_prompts(96), 48, {}};
  grid.options.chunk = 16;
  expect_same_over_grid(grid);
}

TEST(LlamaGrid, VocabularyThatDoesNotDivide) {
  ModelConfig config = small_config(3, 3, 3);
  config.vocab = 97;
  config.mlp = 145;
  config.tied_embeddings = true;
  const SeededSource source(config);
  expect_same_over_grid({source, seeded_prompts(97), 16, {}});
}

TEST(LlamaGrid, SyntheticDecisions) {
  const SeededSource source(grid_config());
  GridCase grid{source, seeded_prompts(96), 48, {}};
  grid.options.chunk = 16;
  grid.options.dmc.mode = DmcMode::synthetic;
  grid.options.dmc.synthetic_cr = 4;
  grid.options.dmc.synthetic_seed = 7;
  const GridRun whole = run(grid, {1, 1, 1});
  int64_t slots = 0;
  for (const auto& counts : whole.slots)
    for (int32_t count : counts) slots += count;
  const int64_t tokens = (5 + 33 + 1 + 18 + 4 * 47) * 6 * 3;
  EXPECT_LT(slots, tokens / 2);
  expect_same_over_grid(grid);
}

TEST(LlamaGrid, LearnedDecisions) {
  for (int window : {0, 12}) {
    ModelConfig config = grid_config();
    config.dmc = DmcConfig{4.0, window, 0.25};  // an offset at which random weights decide both ways
    const SeededSource source(config);
    GridCase grid{source, seeded_prompts(96), 48, {}};
    grid.options.chunk = 16;
    grid.options.dmc = learned_dmc(config, DType::f32);
    ASSERT_EQ(grid.options.dmc.mode, DmcMode::learned);
    const GridRun whole = run(grid, {1, 1, 1});
    const auto [least, most] = std::minmax_element(whole.slots[1].begin(), whole.slots[1].end());
    EXPECT_LT(*most, 33 + 47);
    EXPECT_LT(*least, *most);
    expect_same_over_grid(grid);
  }
}

TEST(LlamaGrid, RealModel) {
  const char* model = std::getenv("ACCRETE_TEST_MODEL");
  if (!model) GTEST_SKIP() << "ACCRETE_TEST_MODEL names no model";
  const auto source = open_model(model, {});
  std::vector<std::vector<int32_t>> prompts;
  for (int64_t length : {7, 40, 1, 21}) prompts.push_back(seeded_prompt("real " + std::to_string(length), length, 256));
  GridCase grid{*source, prompts, 48, {}};
  grid.options.chunk = 16;
  expect_same_over_grid(grid);
}

}  // namespace

}  // namespace accrete::worker
