#include "kernels/thread_pool.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <map>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

namespace accrete {
namespace {

class ThreadPoolTest : public testing::TestWithParam<int> {};

TEST_P(ThreadPoolTest, RunsEveryPartOnce) {
  ThreadPool pool(GetParam());
  EXPECT_EQ(pool.threads(), GetParam());
  for (int64_t parts : {0, 1, 2, 3, 7, 64, 1000}) {
    std::vector<int> times(parts, 0);  // plain ints: two threads on one part would be a race that tsan sees
    pool.run(parts, [&](int64_t part) { ++times[part]; });
    EXPECT_EQ(times, std::vector<int>(parts, 1)) << parts;
  }
}

TEST_P(ThreadPoolTest, DealsPartsInOrder) {
  ThreadPool pool(GetParam());
  std::mutex mutex;
  std::vector<std::pair<std::thread::id, int64_t>> seen;
  pool.run(200, [&](int64_t part) {
    std::lock_guard lock(mutex);
    seen.emplace_back(std::this_thread::get_id(), part);
  });
  std::map<std::thread::id, int64_t> last;
  for (const auto& [thread, part] : seen) {
    if (last.contains(thread)) {
      EXPECT_LT(last[thread], part);
    }
    last[thread] = part;
  }
  EXPECT_LE(static_cast<int>(last.size()), pool.threads());
}

TEST_P(ThreadPoolTest, RangesCoverTheCountInPiecesOfAtLeastGrain) {
  ThreadPool pool(GetParam());
  for (int64_t count : {0, 1, 5, 16, 17, 1000}) {
    for (int64_t grain : {1, 4, 16, 2000}) {
      std::mutex mutex;
      std::set<std::pair<int64_t, int64_t>> ranges;
      pool.run_ranges(count, grain, [&](int64_t begin, int64_t end) {
        std::lock_guard lock(mutex);
        ranges.emplace(begin, end);
      });
      EXPECT_LE(static_cast<int>(ranges.size()), pool.threads());
      int64_t next = 0;
      for (const auto& [begin, end] : ranges) {
        EXPECT_EQ(begin, next);
        if (ranges.size() > 1) {
          EXPECT_GE(end - begin, grain);
        }
        next = end;
      }
      EXPECT_EQ(next, count);
    }
  }
}

// What a part wrote must be visible to the caller, and what the caller wrote between two runs to the parts.
TEST_P(ThreadPoolTest, OrdersMemoryBetweenJobs) {
  ThreadPool pool(GetParam());
  std::vector<int64_t> given(8, 0), made(8, 0);
  for (int64_t round = 0; round < 20000; ++round) {
    for (int64_t i = 0; i < 8; ++i) given[i] = made[i] + i;
    pool.run(8, [&](int64_t part) { made[part] = given[(part + round) % 8] - (part + round) % 8 + 1; });
    for (int64_t value : made) ASSERT_EQ(value, round + 1);
  }
}

TEST_P(ThreadPoolTest, WakesSleepersAndStopsWhileTheySleep) {
  ThreadPool pool(GetParam());
  for (int round = 0; round < 20; ++round) {
    std::this_thread::sleep_for(std::chrono::milliseconds(1));  // past the spin
    std::atomic<int> ran{0};
    pool.run(16, [&](int64_t) { ++ran; });
    EXPECT_EQ(ran, 16);
  }
}

INSTANTIATE_TEST_SUITE_P(Threads, ThreadPoolTest, testing::Values(1, 2, 3, 8),
                         [](const auto& test) { return "n" + std::to_string(test.param); });

// Two parts that wait for each other end only if two threads run them.
TEST(ThreadPoolConcurrency, RunsPartsAtTheSameTime) {
  ThreadPool pool(2);
  std::atomic<int> arrived{0};
  pool.run(2, [&](int64_t) {
    ++arrived;
    while (arrived < 2) std::this_thread::yield();
  });
  EXPECT_EQ(arrived, 2);
}

TEST(ThreadPoolDeathTest, RefusesAPoolWithoutThreads) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_DEATH(ThreadPool(0), "threads >= 1");
}

}  // namespace
}  // namespace accrete
