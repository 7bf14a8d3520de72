// The update and attention on a GPU over steps of prompts, chunks and decodes, against the host (cuda_rig.h).
#if defined(ACCRETE_CUDA)

#include <gtest/gtest.h>

#include "tests/kernels/dmc/cuda_rig.h"

namespace accrete {
namespace {

class CudaSteps : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto reason = CudaDevice::unavailable()) GTEST_SKIP() << *reason;
  }
};

// Prompts of many lengths together, chunks, decodes beside a chunk, decodes alone, and sequences that are padding.
void run_steps(const RigModel& model) {
  Rig rig(model);
  rig.run({{0, 37}, {1, 1}, {2, 300}});
  rig.run({{0, 1}, {2, 5}, {3, 129}}, 2);
  for (int i = 0; i < 4; ++i) rig.run({{0, 1}, {1, 1}, {2, 1}, {3, 1}}, i);
  rig.run({{1, 1}, {3, 1}, {0, 20}, {5, 260}});
  for (int i = 0; i < 20; ++i) rig.run({{5, 1}, {0, 1}, {2, 1}});
  rig.run({{3, 1}, {1, 33}, {0, 2}, {2, 64}, {5, 70}}, 1);
  EXPECT_FALSE(rig.gpu().exhausted());
}

TEST_F(CudaSteps, LearnedHeads128) { run_steps({2, 1, 128, DmcMode::learned}); }
TEST_F(CudaSteps, LearnedHeads64Groups3) { run_steps({3, 3, 64, DmcMode::learned}); }
TEST_F(CudaSteps, LearnedHeads256) { run_steps({1, 2, 256, DmcMode::learned}); }
TEST_F(CudaSteps, LearnedGroups8) { run_steps({1, 8, 128, DmcMode::learned}); }
TEST_F(CudaSteps, LearnedGroups16) { run_steps({1, 16, 64, DmcMode::learned}); }
TEST_F(CudaSteps, LearnedWithoutWindow) { run_steps({2, 2, 128, DmcMode::learned, 0}); }
TEST_F(CudaSteps, LearnedWindow1) { run_steps({1, 1, 64, DmcMode::learned, 1}); }
TEST_F(CudaSteps, LearnedWindow64) { run_steps({1, 1, 128, DmcMode::learned, 64}); }
TEST_F(CudaSteps, LearnedWindow70) { run_steps({1, 1, 64, DmcMode::learned, 70}); }
TEST_F(CudaSteps, Synthetic) { run_steps({4, 4, 128, DmcMode::synthetic}); }
TEST_F(CudaSteps, SyntheticWindow64) { run_steps({3, 1, 64, DmcMode::synthetic, 64}); }
TEST_F(CudaSteps, PlainLlama) { run_steps({2, 4, 128, DmcMode::off}); }
TEST_F(CudaSteps, PagesOf64Slots) { run_steps({2, 2, 64, DmcMode::learned, 12, 64}); }

// A long prompt beside short ones, then chunk after chunk behind it.
void run_long(RigModel model, int32_t tokens) {
  model.pages = model.kv_heads * (2 * (tokens + 1600) / model.page_slots) + 100;
  model.max_pages = (2 * tokens + 1000) / model.page_slots;
  Rig rig(model);
  rig.run({{0, 7}, {1, tokens}, {2, 130}});
  rig.run({{2, 1}, {1, 1}, {0, 127}}, 2);
  rig.run({{0, 64}, {1, 129}, {3, 1}});
  rig.run({{1, 513}, {3, 200}});
  EXPECT_FALSE(rig.gpu().exhausted());
}

TEST_F(CudaSteps, LongLearned128) { run_long({2, 1, 128, DmcMode::learned}, 4500); }
TEST_F(CudaSteps, LongLearnedGroups8PagesOf32) { run_long({1, 8, 128, DmcMode::learned, 12, 32}, 1700); }
TEST_F(CudaSteps, LongLearned64Groups3) { run_long({2, 3, 64, DmcMode::learned}, 2100); }
TEST_F(CudaSteps, LongLearned64PagesOf64) { run_long({2, 1, 64, DmcMode::learned, 12, 64}, 4100); }
TEST_F(CudaSteps, LongPlain128PagesOf64) { run_long({1, 2, 128, DmcMode::off, 12, 64}, 1600); }
TEST_F(CudaSteps, LongPlainGroups16) { run_long({1, 16, 128, DmcMode::off}, 500); }
TEST_F(CudaSteps, LongSynthetic64PagesOf32) { run_long({3, 2, 64, DmcMode::synthetic, 12, 32}, 3000); }

// A group that does not divide prompt attention's rows, over many heads.
TEST_F(CudaSteps, ManyGroupsOfFive) {
  Rig rig({50, 5, 64, DmcMode::synthetic, 12, 16, 8000});
  rig.run({{0, 30}, {1, 41}, {2, 55}, {3, 1}, {4, 2}, {5, 17}});
  rig.run({{3, 1}, {0, 29}, {1, 3}, {2, 2}, {4, 90}, {5, 1}});
  EXPECT_FALSE(rig.gpu().exhausted());
}

// One text in one prompt, in chunks, and token by token: the same bits in every slot.
TEST_F(CudaSteps, BitsDoNotDependOnCuts) {
  for (const RigModel& model : {RigModel{2, 2, 128, DmcMode::learned, 12, 16, 80}, RigModel{2, 1, 64, DmcMode::synthetic, 40, 16, 80}, RigModel{1, 1, 128, DmcMode::learned, 0, 16, 80}}) {
    Rig whole(model), chunks(model), tokens(model);
    whole.run({{4, 250}});
    chunks.run({{4, 37}});
    for (int i = 0; i < 3; ++i) chunks.run({{4, 1}});
    for (const int32_t count : {5, 60, 1, 91}) chunks.run({{4, count}});
    for (int i = 0; i < 53; ++i) chunks.run({{4, 1}});
    for (int i = 0; i < 250; ++i) tokens.run({{4, 1}});
    ASSERT_EQ(chunks.entries(), whole.entries()) << "window " << model.window;
    ASSERT_EQ(tokens.entries(), whole.entries()) << "window " << model.window;
  }
}

// More heads than have room on a GPU at once.
TEST_F(CudaSteps, ManyHeads) {
  for (const DmcMode mode : {DmcMode::learned, DmcMode::off}) {
    Rig rig({1024, 1, 64, mode, 12, 16, 14000});
    rig.run({{0, 20}, {1, 3}, {2, 30}, {3, 1}, {4, 17}, {5, 9}});
    for (int i = 0; i < 4; ++i) rig.run({{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}, {5, 1}}, i % 2);
    EXPECT_FALSE(rig.gpu().exhausted());
  }
}

TEST_F(CudaSteps, InGraphs) {
  Rig rig({2, 2, 128, DmcMode::learned});
  const std::vector<RigStep> steps{{{0, 37}, {1, 50}}, {{0, 1}, {1, 1}}, {{0, 1}, {1, 1}}, {{0, 1}, {1, 40}, {3, 70}}};
  for (const RigStep& step : steps) rig.run(step);  // loads the kernels, which a capture must not
  rig.capture();
  for (const RigStep& step : steps) rig.run(step);
}

// A pool that runs dry is flagged, and every page is still owned once or free.
TEST_F(CudaSteps, PoolRunsDry) {
  Rig rig({2, 1, 128, DmcMode::off, 12, 16, 5});
  rig.run({{0, 100}});
  EXPECT_TRUE(rig.gpu().exhausted());
  EXPECT_LE(rig.gpu().taken(), 5u);
  Rig longer({2, 1, 128, DmcMode::off, 12, 16, 5, 20});  // than its row of the page table, too
  longer.run_unchecked({{0, 900}});
  EXPECT_TRUE(longer.gpu().exhausted());
  Rig decode({2, 1, 128, DmcMode::off, 12, 16, 5});
  decode.run({{0, 20}});
  ASSERT_FALSE(decode.gpu().exhausted());
  for (int i = 0; i < 30; ++i) decode.run({{0, 1}});
  EXPECT_TRUE(decode.gpu().exhausted());
  EXPECT_EQ(decode.gpu().taken(), 5u);
  std::vector<int> owners(5, 0);
  for (int32_t page : decode.gpu().page_rows()) {
    if (page != kNoPage) ++owners[page];
  }
  for (int count : owners) EXPECT_LE(count, 1);
}

// A sequence that outgrows its tables is flagged too, and touches nobody else's.
TEST_F(CudaSteps, TablesRunFull) {
  constexpr int64_t kMaxPages = 40;
  for (const DmcMode mode : {DmcMode::off, DmcMode::learned}) {
    Rig rig({2, 1, 64, mode, 12, 16, 600, kMaxPages});
    rig.run({{1, 30}, {2, 40}});
    const std::vector<int32_t> before = rig.gpu().page_rows();
    const int64_t full = kMaxPages * 16;
    rig.run_unchecked({{1, static_cast<int32_t>(full * (mode == DmcMode::off ? 1 : 8))}});
    EXPECT_TRUE(rig.gpu().exhausted());
    const std::vector<int32_t> after = rig.gpu().page_rows();
    for (int64_t i = 0; i < static_cast<int64_t>(before.size()); ++i) {
      if (i / (2 * kMaxPages) != Rig::kLayer * Rig::kRows + 1) ASSERT_EQ(after[i], before[i]) << i;
    }
  }
}

}  // namespace
}  // namespace accrete

#endif
