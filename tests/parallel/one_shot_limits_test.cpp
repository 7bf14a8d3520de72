#include "parallel/one_shot_limits.h"

#include <gtest/gtest.h>

#include <vector>

namespace accrete::parallel {
namespace {

// One size a time the one-shot way takes beside ten of the other's.
int64_t limit_at(const std::vector<double>& one_shot_us) {
  std::vector<TimedSize> sizes;
  int64_t bytes = 1024;
  for (double us : one_shot_us) {
    sizes.push_back({bytes, us, 10.0});
    bytes *= 2;
  }
  return limit_of(sizes);
}

TEST(SumLimits, EndsWhereTheOtherWayBegins) {
  EXPECT_EQ(limit_at({5, 6, 7, 8}), 8192);
  EXPECT_EQ(limit_at({5, 6, 11, 12, 9}), 2048);
  EXPECT_EQ(limit_at({11, 12, 5, 5}), 0);
  EXPECT_EQ(limit_at({}), 0);
}

TEST(SumLimits, ASingleLossIsNoise) {
  EXPECT_EQ(limit_at({11, 6, 7}), 4096);
  EXPECT_EQ(limit_at({5, 11, 7, 8, 11}), 8192);
}

}  // namespace
}  // namespace accrete::parallel
