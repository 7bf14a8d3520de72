#include "kernels/mlp/silu_mul.h"

#include <gtest/gtest.h>

#include "kernels/exp.h"
#include "kernels/thread_pool.h"
#include "tests/kernels/random_matrix.h"

namespace accrete {
namespace {

template <class T>
void expect_silu_mul(int64_t tokens, int64_t width, float scale) {
  RandomMatrix<T> gate_up(tokens, 2 * width, 1, scale);
  RandomMatrix<T> y(tokens, width, 2);
  ThreadPool pool(2);
  Stream stream{&pool};
  silu_mul_cpu({gate_up.view(), y.view()}, stream);
  // fast_exp is within 2e-7; the quotient, the two products and the sum add four roundings; bf16 stores with 2^-8.
  const double relative = 2e-7 + gamma(4) + (sizeof(T) == 2 ? 0x1p-8 : 0);
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t f = 0; f < width; ++f) {
      const double gate = gate_up.at(t, f);
      const double expected = gate / (1 + std::exp(-gate)) * gate_up.at(t, width + f);
      // Below -88.3 the exponential saturates at 2.2e38 instead of growing on.
      const double saturated = std::abs(gate * gate_up.at(t, width + f)) * 5e-39;
      ASSERT_NEAR(y.at(t, f), expected, relative * std::abs(expected) + saturated) << "gate " << gate;
    }
  }
  EXPECT_TRUE(y.gaps_untouched());
}

TEST(SiluMul, EqualsTheFormulaWithinTheBound) {
  for (float scale : {0.1f, 1.0f, 10.0f, 60.0f}) {
    expect_silu_mul<float>(5, 77, scale);
    expect_silu_mul<bf16>(5, 77, scale);
  }
  expect_silu_mul<float>(1, 1, 1.0f);
  expect_silu_mul<float>(33, 1536, 1.0f);
  expect_silu_mul<float>(0, 16, 1.0f);
}

TEST(SiluMul, VanishesForLargeNegativeGatesAndPassesLargePositiveOnes) {
  float gate_up[] = {-200.0f, -1e30f, 200.0f, 1e30f, 2.0f, 3.0f, 5.0f, 7.0f};
  float y[4];
  ThreadPool pool(1);
  Stream stream{&pool};
  silu_mul_cpu({View<float, 2>(gate_up, {1, 8}), View<float, 2>(y, {1, 4})}, stream);
  EXPECT_NEAR(y[0], 0.0f, 1e-30f);
  EXPECT_NEAR(y[1], 0.0f, 1e-6f);
  EXPECT_FLOAT_EQ(y[2], 1000.0f);
  EXPECT_FLOAT_EQ(y[3], 7e30f);
}

TEST(FastExp, IsWithinTwoTenMillionthsOverItsRange) {
  double worst = 0;
  for (double x = -87.3; x <= 88.3; x += 0.00037) {
    const float argument = static_cast<float>(x);
    const double exact = std::exp(static_cast<double>(argument));
    worst = std::max(worst, std::abs(fast_exp(argument) / exact - 1));
  }
  EXPECT_LT(worst, 2e-7);
  EXPECT_EQ(fast_exp(0.0f), 1.0f);
  EXPECT_EQ(fast_exp(-88.0f), 0.0f);
  EXPECT_EQ(fast_exp(-std::numeric_limits<float>::infinity()), 0.0f);
  EXPECT_TRUE(std::isfinite(fast_exp(1000.0f)));
}

}  // namespace
}  // namespace accrete
