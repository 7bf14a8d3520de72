// The numbers that host and device must agree on.
#include <gtest/gtest.h>

#include <limits>
#include <vector>

#include "kernels/exp.h"
#include "kernels/sampling/device_weights.h"

namespace accrete {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Both are within 2e-7 of e^x.
TEST(DeviceWeights, ExponentialIsTheHostsUpToFusedRounding) {
  for (float x = -100; x < 88; x += 0.00731f) {
    ASSERT_NEAR(weight_exp(x), fast_exp(x), 4e-7f * fast_exp(x)) << x;
  }
  EXPECT_EQ(weight_exp(0.0f), 1.0f);
  EXPECT_EQ(weight_exp(-0.0f), 1.0f);
  EXPECT_EQ(weight_exp(-88.0f), 0.0f);
  EXPECT_EQ(weight_exp(-kInfinity), 0.0f);
}

TEST(DeviceWeights, FixedWeightsAreShortByLessThanAUnit) {
  EXPECT_EQ(fixed_weight(1.0f), uint64_t{1} << 44);
  EXPECT_EQ(fixed_weight(0.0f), 0u);
  EXPECT_EQ(fixed_weight(0x1p-44f), 1u);
  EXPECT_EQ(fixed_weight(0x1.8p-45f), 0u);
  for (float weight = 1; weight > 1e-30f; weight *= 0.873f) {
    const double exact = static_cast<double>(weight) * 0x1p44;
    EXPECT_LE(static_cast<double>(fixed_weight(weight)), exact);
    EXPECT_GT(static_cast<double>(fixed_weight(weight)) + 1, exact);
  }
}

TEST(DeviceWeights, KeysOrderAsFloatsDo) {
  const std::vector<float> ascending{-kInfinity, -3e38f, -1, -1e-30f, -1e-45f, 0, 1e-45f, 2, 3e38f, kInfinity};
  for (size_t i = 0; i < ascending.size(); ++i) {
    EXPECT_EQ(value_of_key(order_key(ascending[i])), ascending[i]);
    if (i > 0) {
      EXPECT_LT(order_key(ascending[i - 1]), order_key(ascending[i]));
    }
  }
  EXPECT_EQ(order_key(-0.0f), order_key(0.0f));
}

TEST(DeviceWeights, OfEqualLogitsTheSmallestIdRanksFirst) {
  EXPECT_GT(ranked(1, 5), ranked(1, 6));
  EXPECT_GT(ranked(0.0f, 5), ranked(-0.0f, 6));
  EXPECT_GT(ranked(-0.0f, 5), ranked(0.0f, 6));
  EXPECT_GT(ranked(1.5f, 1000000), ranked(1, 0));
  EXPECT_EQ(ranked(-kInfinity, 0), 0u);
  EXPECT_EQ(ranked(kInfinity, 3), kUnusable);
  EXPECT_EQ(ranked(std::nanf(""), 3), kUnusable);
  EXPECT_EQ(token_of(ranked(-2.5f, 393215)), 393215);
  EXPECT_EQ(logit_of(ranked(-2.5f, 393215)), -2.5f);
  EXPECT_EQ(token_of(0), -1);
  EXPECT_EQ(token_of(kUnusable), -1);
}

TEST(DeviceWeights, MassesStayInRange) {
  const uint64_t most = uint64_t{393216} << 44;  // all weights 1, the largest vocabulary
  EXPECT_LT(mass_at(1 - 0x1p-53, most), most);
  EXPECT_EQ(mass_at(1 - 0x1p-53, 1), 0u);
  EXPECT_EQ(mass_at(1 - 0x1p-53, (uint64_t{1} << 54) - 1), (uint64_t{1} << 54) - 2);
  EXPECT_EQ(mass_at(0x1p-53, uint64_t{1} << 44), 0u);
  EXPECT_EQ(mass_at(0.5, 10), 5u);
  EXPECT_EQ(needed_mass(0.0f, most), 1u);
  EXPECT_EQ(needed_mass(0.5f, 10), 5u);
  EXPECT_EQ(needed_mass(0.5f, 11), 6u);
  EXPECT_EQ(needed_mass(1.0f, most), most);
  EXPECT_LT(needed_mass(1 - 0x1p-24f, most), most);
}

}  // namespace
}  // namespace accrete
