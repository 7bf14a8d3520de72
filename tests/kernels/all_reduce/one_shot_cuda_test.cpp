// What the one-shot all-reduce promises beyond its sums: replays of graphs, and an end when a rank does not come.
#if defined(ACCRETE_CUDA)

#include <gtest/gtest.h>

#include <cstring>

#include "tests/kernels/all_reduce/one_shot_ranks.h"

namespace accrete {
namespace {

constexpr uint64_t kShortNs = 50'000'000;
constexpr int64_t kCount = 5000;

class OneShotCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto reason = CudaRanks::unavailable()) GTEST_SKIP() << *reason;
  }

  // Rank r's values are all r + 1.
  void fill(int ranks) {
    for (int r = 0; r < ranks; ++r) {
      memory_.push_back(std::make_unique<CudaDevice::Memory<float>>(std::vector<float>(kCount, static_cast<float>(r + 1))));
      views_.push_back({View<float, 1>(memory_[r]->data(), {kCount}), {}});
    }
  }
  void expect_values(int rank, float value) {
    for (float got : memory_[rank]->read()) ASSERT_EQ(got, value) << "rank " << rank;
  }

  std::vector<std::unique_ptr<CudaDevice::Memory<float>>> memory_;
  std::vector<OneShotSum> views_;
};

// Three operations in a graph, an odd number, so that a replay begins with the other half of the staging memory than the one before.
TEST_F(OneShotCuda, GraphsReplay) {
  constexpr int kRanks = 4, kReplays = 100;
  fill(kRanks);
  CudaRanks ranks(kRanks);
  std::vector<std::unique_ptr<CudaDevice::Memory<float>>> inputs;
  std::vector<DeviceGraph> graphs;
  for (int r = 0; r < kRanks; ++r) {
    inputs.push_back(std::make_unique<CudaDevice::Memory<float>>(std::vector<float>(kCount)));
    graphs.emplace_back(ranks.stream(r), [&] {
      copy_on_device(views_[r].values.data, inputs[r]->data(), kCount * sizeof(float), ranks.stream(r));
      for (int i = 0; i < 3; ++i) one_shot_sum_cuda(views_[r], ranks.ref(r), ranks.stream(r));
    });
    synchronize(ranks.stream(r));
  }
  for (int i = 0; i < kReplays; ++i) {
    for (int r = 0; r < kRanks; ++r) {
      const std::vector<float> input(kCount, static_cast<float>((i + 1) * (r + 1)));
      copy_to_device(inputs[r]->data(), input.data(), kCount * sizeof(float), ranks.stream(r));
      synchronize(ranks.stream(r));
    }
    // Every other time several replays follow each other.
    for (int again = 0; again <= i % 2 * 3; ++again) {
      for (int r = 0; r < kRanks; ++r) graphs[r].launch(ranks.stream(r));
    }
    for (int r = 0; r < kRanks; ++r) synchronize(ranks.stream(r));
    for (int r = 0; r < kRanks; ++r) expect_values(r, static_cast<float>((i + 1) * (1 + 2 + 3 + 4) * kRanks * kRanks));
    ASSERT_FALSE(HasFatalFailure());
  }
  for (int r = 0; r < kRanks; ++r) EXPECT_FALSE(ranks.broken(r));
}

TEST_F(OneShotCuda, ARankThatDoesNotComeIsNamed) {
  fill(3);
  CudaRanks ranks(3, 64 << 10, kShortNs);
  ranks.sum(views_);
  for (int r : {0, 2}) one_shot_sum_cuda(views_[r], ranks.ref(r), ranks.stream(r));
  for (int r : {0, 2}) {
    synchronize(ranks.stream(r));
    ASSERT_TRUE(ranks.broken(r)) << "rank " << r;
    EXPECT_EQ(ranks.report(r).blamed, 1);
    EXPECT_EQ(ranks.report(r).operation, 2u);
    EXPECT_EQ(ranks.report(r).bytes, kCount * sizeof(float));
    EXPECT_EQ(ranks.report(r).kind, OneShotKind::sum);
    expect_values(r, 6);  // of the first operation
  }
  // Rank 1 comes too late: it learns that it was given up, without waiting.
  one_shot_sum_cuda(views_[1], ranks.ref(1), ranks.stream(1));
  synchronize(ranks.stream(1));
  ASSERT_TRUE(ranks.broken(1));
  EXPECT_EQ(ranks.report(1).blamed, 1);
  expect_values(1, 6);
}

TEST_F(OneShotCuda, ARankThatIsToldToStopEndsAndTellsTheOthers) {
  fill(2);
  CudaRanks ranks(2, 64 << 10, 60'000'000'000);
  one_shot_sum_cuda(views_[0], ranks.ref(0), ranks.stream(0));
  __atomic_store_n(&ranks.report(0).stop, 1u, __ATOMIC_RELAXED);
  synchronize(ranks.stream(0));
  ASSERT_TRUE(ranks.broken(0));
  EXPECT_EQ(ranks.report(0).blamed, 0);
  one_shot_sum_cuda(views_[1], ranks.ref(1), ranks.stream(1));
  synchronize(ranks.stream(1));
  ASSERT_TRUE(ranks.broken(1));
  EXPECT_EQ(ranks.report(1).blamed, 0);
}

// A broken group's later launches, replays of graphs among them, end at once and touch nothing.
TEST_F(OneShotCuda, ABrokenGroupStaysBroken) {
  fill(2);
  CudaRanks ranks(2, 64 << 10, kShortNs);
  DeviceGraph graph(ranks.stream(0), [&] { one_shot_sum_cuda(views_[0], ranks.ref(0), ranks.stream(0)); });
  for (int i = 0; i < 100; ++i) graph.launch(ranks.stream(0));
  synchronize(ranks.stream(0));
  ASSERT_TRUE(ranks.broken(0));
  EXPECT_EQ(ranks.report(0).operation, 1u);
  expect_values(0, 1);
}

}  // namespace
}  // namespace accrete

#endif
