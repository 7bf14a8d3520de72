#include "kernels/rope/rope_angles.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/thread_pool.h"

namespace accrete {
namespace {

// The angle is a double product: a float angle at position 100,000 would be off by 4e-3.
TEST(RopeAngles, AreExactToFloatAtLongPositions) {
  const std::vector<int32_t> positions{0, 1, 2, 511, 8191, 100003, 1048575};
  std::vector<double> frequencies(32);
  for (size_t i = 0; i < frequencies.size(); ++i) frequencies[i] = std::pow(10000.0, -static_cast<double>(i) / 32);
  const int64_t tokens = positions.size(), half = frequencies.size();
  std::vector<float> cosines(tokens * half), sines(tokens * half);
  ThreadPool pool(2);
  Stream stream{&pool};
  rope_angles_cpu({View<const int32_t, 1>(positions.data(), {tokens}), View<const double, 1>(frequencies.data(), {half}),
                   View<float, 2>(cosines.data(), {tokens, half}), View<float, 2>(sines.data(), {tokens, half})},
                  stream);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t i = 0; i < half; ++i) {
      const long double angle = static_cast<long double>(positions[t]) * frequencies[i];
      // Half an ulp of a result below 1, and the double angle's own rounding.
      const double bound = 0x1p-25 + std::abs(static_cast<double>(angle)) * 0x1p-52;
      EXPECT_NEAR(cosines[t * half + i], std::cos(angle), bound) << positions[t] << " " << i;
      EXPECT_NEAR(sines[t * half + i], std::sin(angle), bound) << positions[t] << " " << i;
    }
  }
}

TEST(RopeAngles, AreTheSameForAnySplitOfTheTokens) {
  std::vector<int32_t> positions(100);
  for (size_t t = 0; t < positions.size(); ++t) positions[t] = static_cast<int32_t>(17 * t);
  const std::vector<double> frequencies{1.0, 0.1, 0.01};
  const auto run = [&](int threads) {
    std::vector<float> cosines(300), sines(300);
    ThreadPool pool(threads);
    Stream stream{&pool};
    rope_angles_cpu({View<const int32_t, 1>(positions.data(), {100}), View<const double, 1>(frequencies.data(), {3}),
                     View<float, 2>(cosines.data(), {100, 3}), View<float, 2>(sines.data(), {100, 3})},
                    stream);
    cosines.insert(cosines.end(), sines.begin(), sines.end());
    return cosines;
  };
  EXPECT_EQ(run(1), run(3));
}

}  // namespace
}  // namespace accrete
