// Random interleavings of steps, finishes, preemptions, restores and exhaustion, against the naive model.
#include <gtest/gtest.h>

#include "tests/cache/step_rig.h"

namespace accrete::cache {
namespace {

constexpr int64_t kOperations = 100'000;  // appends and accumulates of a seed
constexpr double kBound = 1e-5;           // f32 sums of at most a few dozen terms of size 1 to 6

struct Counts {
  int64_t updates = 0, finished = 0, exported = 0, imported = 0, refused = 0, exhausted = 0;
};

class RandomSteps {
 public:
  RandomSteps(uint32_t seed, const KvCacheShape& shape) : shape_(shape), cache_(shape), rig_(cache_, seed + 1000), random_(seed) {
    rows_.resize(shape.sequences);
  }

  Counts run() {
    while (counts_.updates < kOperations && !testing::Test::HasFailure()) {
      switch (pick(12)) {
        case 0: finish(); break;
        case 1: preempt(); break;
        case 2: restore(); break;
        default: step(); break;
      }
      check();
    }
    for (int32_t row = 0; row < static_cast<int32_t>(rows_.size()); ++row) cache_.release(row);
    EXPECT_EQ(cache_.free_pages(), shape_.pages) << "a page leaked";
    EXPECT_EQ(cache_.audit(), std::nullopt);
    return counts_;
  }

 private:
  struct Swapped {
    NaiveRow model;
    std::vector<std::byte> bytes;
  };

  int64_t pick(int64_t below) { return std::uniform_int_distribution<int64_t>(0, below - 1)(random_); }
  int32_t pick_row() { return static_cast<int32_t>(pick(shape_.sequences)); }

  void step() {
    std::vector<RowStep> steps;
    std::vector<NaiveRow*> models;
    const bool prompt = pick(3) == 0;
    for (int32_t row = 0; row < static_cast<int32_t>(rows_.size()); ++row) {
      if (pick(2) == 0) continue;
      if (!rows_[row]) rows_[row] = naive_row(shape_);
      const int64_t tokens = prompt ? 1 + pick(9) : 1;
      if (rows_[row]->tokens + tokens > shape_.max_tokens) continue;
      steps.push_back({row, tokens});
      models.push_back(&*rows_[row]);
      counts_.updates += tokens * shape_.heads();
    }
    if (steps.empty()) return;
    rig_.run(steps, models);
    if (!cache_.take_exhausted()) return;
    ++counts_.exhausted;
    EXPECT_EQ(cache_.free_pages(), 0);
    for (const RowStep& step : steps) drop(step.row);
  }

  void drop(int32_t row) {
    cache_.release(row);
    rows_[row].reset();
  }
  void finish() {
    drop(pick_row());  // an empty row too
    ++counts_.finished;
  }
  void preempt() {
    const int32_t row = pick_row();
    if (!rows_[row] || swapped_.size() >= 4) return;
    swapped_.push_back({*rows_[row], cache_.export_row(row)});
    EXPECT_EQ(snapshot_pages(swapped_.back().bytes), cache_.use(row).pages);
    drop(row);
    ++counts_.exported;
  }
  void restore() {
    const int32_t row = pick_row();
    if (rows_[row] || swapped_.empty()) return;
    const size_t which = static_cast<size_t>(pick(static_cast<int64_t>(swapped_.size())));
    const int64_t free = cache_.free_pages();
    if (!cache_.import_row(row, swapped_[which].bytes)) {
      ++counts_.refused;
      EXPECT_GT(snapshot_pages(swapped_[which].bytes), free);
      EXPECT_EQ(cache_.free_pages(), free);
      return;
    }
    ++counts_.imported;
    EXPECT_EQ(cache_.export_row(row), swapped_[which].bytes) << "an imported row exports the same bytes";
    rows_[row] = swapped_[which].model;
    swapped_.erase(swapped_.begin() + static_cast<int64_t>(which));
  }

  void check() {
    EXPECT_EQ(cache_.audit(), std::nullopt);
    int64_t pages = 0;
    for (int32_t row = 0; row < static_cast<int32_t>(rows_.size()); ++row) {
      pages += cache_.use(row).pages;
      if (!rows_[row]) {
        EXPECT_EQ(cache_.use(row).slots, 0);
        continue;
      }
      EXPECT_LT(row_difference(cache_, row, *rows_[row]), kBound) << "row " << row;
    }
    EXPECT_EQ(pages + cache_.free_pages(), shape_.pages);
    EXPECT_EQ(cache_.bytes_in_use(), pages * shape_.page_bytes());
  }

  KvCacheShape shape_;
  KvCache cache_;
  StepRig rig_;
  std::mt19937 random_;
  std::vector<std::optional<NaiveRow>> rows_;
  std::vector<Swapped> swapped_;
  Counts counts_;
};

class RandomStepsTest : public testing::TestWithParam<uint32_t> {};

TEST_P(RandomStepsTest, never_leaks_frees_twice_or_loses_a_slot) {
  for (int window : {12, 3, 0}) {
    SCOPED_TRACE(testing::Message() << "seed " << GetParam() << " window " << window);
    const KvCacheShape shape{.layers = 2, .kv_heads = 2, .head_size = 4, .sequences = 5, .max_tokens = 40, .pages = 48,
                             .page_slots = 4, .window = window, .dmc = true};
    const Counts counts = RandomSteps(GetParam(), shape).run();
    if (HasFailure()) return;
    EXPECT_GT(counts.exhausted, 10);
    EXPECT_GT(counts.exported, 50);
    EXPECT_GT(counts.imported, 50);
    std::printf("seed %u window %d: %ld updates, %ld finished, %ld exported, %ld imported, %ld refused, %ld exhausted\n", GetParam(),
                window, long(counts.updates), long(counts.finished), long(counts.exported), long(counts.imported),
                long(counts.refused), long(counts.exhausted));
  }
}

INSTANTIATE_TEST_SUITE_P(seeds, RandomStepsTest, testing::Values(1u, 2u, 3u, 4u),
                         [](const auto& info) { return "seed_" + std::to_string(info.param); });

}  // namespace
}  // namespace accrete::cache
