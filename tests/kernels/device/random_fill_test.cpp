#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "kernels/device/random_value.h"
#include "tests/kernels/op_devices.h"
#if defined(ACCRETE_CUDA)
#include "kernels/device/random_fill.h"
#include "kernels/device/read_pass.h"
#endif

namespace accrete {
namespace {

// Of n independent numbers the mean is off by more than 5 / sqrt(n) deviations, or the variance by more than 5 sqrt(2 / n) of itself, less
// than once in a million (the bell's fourth moment is below a normal one's).
TEST(RandomValue, HasMeanZeroAndTheDeviation) {
  constexpr int64_t kCount = 1 << 20;
  constexpr float kDeviation = 0.25f;
  for (const uint64_t key : {uint64_t{1}, uint64_t{77} << 40}) {
    double sum = 0, squares = 0;
    for (int64_t i = 0; i < kCount; ++i) {
      const double value = random_value(key, static_cast<uint64_t>(i), kDeviation);
      sum += value;
      squares += value * value;
    }
    const double n = kCount, variance = kDeviation * kDeviation;
    EXPECT_NEAR(sum / n, 0, 5 * kDeviation / std::sqrt(n));
    EXPECT_NEAR(squares / n, variance, 5 * variance * std::sqrt(2 / n));
  }
}

TEST(RandomValue, DependsOnKeyAndWholeIndex) {
  int same_key = 0, same_high = 0;
  for (uint64_t i = 0; i < 1000; ++i) {
    same_key += random_value(1, i, 1) == random_value(2, i, 1);
    same_high += random_value(1, i, 1) == random_value(1, i + (uint64_t{1} << 32), 1);
  }
  EXPECT_LT(same_key, 50);  // sums take 1021 values; equal ones by chance: about 3
  EXPECT_LT(same_high, 50);
}

#if defined(ACCRETE_CUDA)

template <class T>
class RandomFillTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (const auto why = CudaDevice::unavailable()) GTEST_SKIP() << *why;
  }
};
using Types = ::testing::Types<float, bf16, fp8>;
TYPED_TEST_SUITE(RandomFillTest, Types);

// All of the numbers and nothing behind them, from an odd place of the stream, beyond 2^32 too.
TYPED_TEST(RandomFillTest, IsTheFormula) {
  CudaDevice device;
  for (const int64_t count : {1, 15, 16, 4096, 100003}) {
    for (const int64_t first : {int64_t{0}, int64_t{5}, (int64_t{1} << 32) - 7}) {
      CudaDevice::Memory<TypeParam> memory(std::vector<TypeParam>(count + 8, TypeParam(7.0f)));
      fill_random_cuda({View<TypeParam, 1>(memory.data(), {count}), 42, 3.0f, first}, device.stream());
      std::vector<TypeParam> expected(count + 8, TypeParam(7.0f));
      for (int64_t i = 0; i < count; ++i) expected[i] = TypeParam(random_value(42, static_cast<uint64_t>(first + i), 3.0f));
      const auto got = memory.read();
      ASSERT_EQ(std::memcmp(got.data(), expected.data(), got.size() * sizeof(TypeParam)), 0) << count << " from " << first;
    }
  }
}

TEST(ReadPass, ReadsEveryWordOnce) {
  if (const auto why = CudaDevice::unavailable()) GTEST_SKIP() << *why;
  CudaDevice device;
  for (const int64_t count : {4, 4000, 1 << 20, (1 << 22) + 12}) {
    std::vector<uint32_t> words(count);
    uint32_t parity = 5;
    for (int64_t i = 0; i < count; ++i) parity ^= words[i] = static_cast<uint32_t>(i) * 0x9e3779b1u + 1;
    CudaDevice::Memory<uint32_t> memory(words), result(std::vector<uint32_t>{5});
    read_pass_cuda({View<const uint32_t, 1>(memory.data(), {count}), View<uint32_t, 1>(result.data(), {1})}, device.stream());
    EXPECT_EQ(result.read()[0], parity) << count;
  }
}

#endif

}  // namespace
}  // namespace accrete
