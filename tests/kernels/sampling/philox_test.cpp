#include "kernels/sampling/philox.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "kernels/sampling/sampling.h"

namespace accrete {
namespace {

struct Answer {
  PhiloxBlock counter;
  uint32_t key[2];
  PhiloxBlock expected;
};
// The known answers that the paper's authors publish for philox4x32 with ten rounds: zeros, ones, digits of pi.
constexpr Answer kAnswers[] = {
    {{{0, 0, 0, 0}}, {0, 0}, {{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}}},
    {{{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}},
     {0xffffffff, 0xffffffff},
     {{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}}},
    {{{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}},
     {0xa4093822, 0x299f31d0},
     {{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}}},
};

TEST(Philox, GivesTheKnownAnswers) {
  for (const Answer& answer : kAnswers) {
    const PhiloxBlock block = philox_4x32(answer.counter, answer.key[0], answer.key[1]);
    for (int i = 0; i < 4; ++i) EXPECT_EQ(block.word[i], answer.expected.word[i]) << i;
  }
}

TEST(Philox, UnitsStayInsideTheOpenInterval) {
  EXPECT_EQ(philox_unit({{0, 0, 0, 0}}), 0x1p-53);
  EXPECT_LT(philox_unit({{0xffffffff, 0xffffffff, 0, 0}}), 1.0);
  EXPECT_EQ(philox_uniform(0, 0), philox_unit(kAnswers[0].expected));
}

// Chi-square of uniforms in 64 equal cells: 63 degrees of freedom, 131 is exceeded with probability 1e-6. Consecutive
// positions, consecutive seeds, and positions beyond 32 bits must all look uniform.
double chi_square(uint64_t seed_step, uint64_t position_step) {
  constexpr int kCells = 64, kDraws = 64000;
  std::vector<int> counts(kCells, 0);
  for (uint64_t i = 0; i < kDraws; ++i) ++counts[static_cast<int>(philox_uniform(i * seed_step, i * position_step) * kCells)];
  double sum = 0;
  for (int count : counts) sum += std::pow(count - kDraws / kCells, 2) / (kDraws / kCells);
  return sum;
}
TEST(Philox, IsUniformAlongPositionsAndSeeds) {
  EXPECT_LT(chi_square(0, 1), 131);
  EXPECT_LT(chi_square(1, 0), 131);
  EXPECT_LT(chi_square(0, uint64_t{1} << 32), 131);
  EXPECT_LT(chi_square(uint64_t{1} << 32, 0), 131);
  EXPECT_GT(chi_square(0, 0), 131);  // the same number every time: the test can fail
}

}  // namespace
}  // namespace accrete
