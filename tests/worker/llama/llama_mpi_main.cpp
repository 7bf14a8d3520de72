// The small network over every grid of shards and stages that the mpirun job's ranks make up, against the whole of it
// in one rank.
#include <gtest/gtest.h>

#include "parallel/mpi_communicator.h"
#include "tests/worker/llama/llama_rig.h"
#include "tests/worker/llama/seeded_source.h"

namespace accrete::worker {

namespace {

parallel::Communicator* world = nullptr;  // gtest's bodies take no arguments

void expect_as_one_rank(const SeededSource& source, RigOptions options) {
  const std::vector<std::vector<int32_t>> prompts{seeded_prompt("m", 21, 96), seeded_prompt("p", 1, 96),
                                                  seeded_prompt("i", 40, 96)};
  LlamaRig whole(source, options);
  const LlamaRig::Greedy wanted = whole.greedy(prompts, 24);
  for (int tensor = 1; tensor <= source.config().kv_heads; ++tensor) {
    if (world->size() % tensor != 0) continue;
    options.topology = {tensor, world->size() / tensor, 1};
    LlamaRig part(source, options, *world);
    const LlamaRig::Greedy found = part.greedy(prompts, 24);
    EXPECT_EQ(found.tokens, wanted.tokens) << tensor;
    for (size_t i = 0; i < prompts.size(); ++i) {
      const double bound = reordering_bound(source.config(), scale_of(wanted.logits[i]), 4);
      EXPECT_LE(largest_difference(found.logits[i], wanted.logits[i]), tensor == 1 ? 0.0 : bound) << tensor;
    }
  }
}

TEST(LlamaOverMpi, PlainCache) {
  RigOptions options;
  options.chunk = 16;
  expect_as_one_rank(SeededSource(small_config(6, 9, 3)), options);
}

TEST(LlamaOverMpi, LearnedDecisions) {
  ModelConfig config = small_config(6, 9, 3);
  config.dmc = DmcConfig{4.0, 12, 0.25};
  RigOptions options;
  options.chunk = 16;
  options.dmc = learned_dmc(config, DType::f32);
  expect_as_one_rank(SeededSource(config), options);
}

}  // namespace

}  // namespace accrete::worker

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  accrete::parallel::MpiSession session;
  const auto group = session.world();
  accrete::worker::world = group.get();
  return RUN_ALL_TESTS();
}
