#include "kernels/gemm/fp8_scale.h"

#include <gtest/gtest.h>

#include <limits>

namespace accrete {
namespace {

// Every bf16 x up to the largest number of its row, for every significand of that: quotients' significands do not depend on the exponent, so
// a few exponents of the row stand for all that `plain` admits. 2^-11 of the step that e4m3 has for small numbers is less than half of it, so
// smaller x are all alike.
TEST(Fp8Scale, QuotientsRoundAsDivisionDoes) {
  for (const int row_exponent : {-71, -1, 0, 40, 87}) {
    for (int significand = 128; significand < 256; ++significand) {
      const float largest = std::ldexp(static_cast<float>(significand), row_exponent - 7);
      const Fp8Scale scale(largest);
      ASSERT_TRUE(scale.plain()) << largest;
      ASSERT_EQ(scale.scale(), largest / 448.0f);
      for (int exponent = row_exponent; exponent > row_exponent - 22; --exponent) {
        for (int i = -255; i < 256; ++i) {
          const float x = std::ldexp(static_cast<float>(i), exponent - 7);
          if (std::abs(x) > largest) continue;
          ASSERT_EQ(fp8(scale.quotient(x)).bits, fp8(x / scale.scale()).bits) << x << " of " << largest;
        }
      }
      ASSERT_TRUE(std::signbit(scale.quotient(-0.0f)));
      ASSERT_TRUE(std::isnan(scale.quotient(std::numeric_limits<float>::quiet_NaN())));
      ASSERT_EQ(fp8(scale.quotient(std::numeric_limits<float>::denorm_min())).bits, 0);
    }
  }
}

TEST(Fp8Scale, OtherRowsAreDivided) {
  EXPECT_FALSE(Fp8Scale(1e-38f).plain());
  EXPECT_FALSE(Fp8Scale(1e38f).plain());
  EXPECT_FALSE(Fp8Scale(std::numeric_limits<float>::infinity()).plain());
  EXPECT_EQ(Fp8Scale(0.0f).scale(), 1.0f);
  EXPECT_TRUE(Fp8Scale(0.0f).plain());
}

}  // namespace
}  // namespace accrete
