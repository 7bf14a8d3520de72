// Numbers of the sampling kernels that must come out alike on host and device: weights, their exact sums, keys that order logits.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/dtype.h"

namespace accrete {

constexpr int kWeightBits = 44;  // weights are at most 1 and V below 2^19, so masses stay below 2^63

// fast_exp (kernels/exp.h) with its products fused, as processors with FMA compute it: the same bits as there, elsewhere within
// 4e-7 of it. For x <= 0 or NaN-free x of any sign below 88.
ACCRETE_HD inline float weight_exp(float x) {
  constexpr float kLowest = -87.3f, kHighest = 88.3f;
  constexpr float kLn2Upper = 0.693359375f, kLn2Lower = -2.12194440e-4f;
  constexpr float kRound = 12582912.0f;
  if (x < kLowest) return 0.0f;
  const float clamped = x > kHighest ? kHighest : x;
  const float shifted = fmaf(clamped, 1.44269504f, kRound);
  const float n = shifted - kRound;
  const float r = fmaf(-n, kLn2Lower, fmaf(-n, kLn2Upper, clamped));
  float p = 1.0f / 5040;
  p = fmaf(p, r, 1.0f / 720);
  p = fmaf(p, r, 1.0f / 120);
  p = fmaf(p, r, 1.0f / 24);
  p = fmaf(p, r, 1.0f / 6);
  p = fmaf(p, r, 0.5f);
  p = fmaf(p, r, 1.0f);
  p = fmaf(p, r, 1.0f);
  const uint32_t exponent = __builtin_bit_cast(uint32_t, shifted) << 23;
  return __builtin_bit_cast(float, __builtin_bit_cast(uint32_t, p) + exponent);
}

// A weight in [0, 1] in units of 2^-44, cut off: sums of such are exact in any order, and each term is short by less than a unit.
ACCRETE_HD inline uint64_t fixed_weight(float weight) { return static_cast<uint64_t>(weight * 0x1p44f); }

// Unsigned keys in the order of the floats; both zeros have one key. Not for NaN.
ACCRETE_HD inline uint32_t order_key(float value) {
  const uint32_t bits = __builtin_bit_cast(uint32_t, value == 0.0f ? 0.0f : value);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
ACCRETE_HD inline float value_of_key(uint32_t key) {
  return __builtin_bit_cast(float, key & 0x80000000u ? key & 0x7fffffffu : ~key);
}

// A logit with its id as one number: the larger, the better (larger logit, then smaller id). 0 stands for none, kUnusable, larger
// than any, for a logit that is NaN or +inf. -inf is none as well: such a token is never taken.
constexpr uint64_t kUnusable = ~uint64_t{0};
ACCRETE_HD inline uint64_t ranked(float logit, int32_t token) {
  if (!(logit < __builtin_huge_valf())) return kUnusable;
  if (logit == -__builtin_huge_valf()) return 0;
  return static_cast<uint64_t>(order_key(logit)) << 32 | (0xffffffffu - static_cast<uint32_t>(token));
}
ACCRETE_HD inline int32_t token_of(uint64_t best) {
  return best == 0 || best == kUnusable ? -1 : static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(best));
}
ACCRETE_HD inline float logit_of(uint64_t best) { return value_of_key(static_cast<uint32_t>(best >> 32)); }

// How much of `mass` the prefix of top_p must reach, and the mass at which a uniform in (0, 1) falls: below it and above.
ACCRETE_HD inline uint64_t needed_mass(float top_p, uint64_t mass) {
  const double share = ceil(static_cast<double>(top_p) * static_cast<double>(mass));
  const uint64_t need = share < 1.0 ? 1 : static_cast<uint64_t>(share);
  return need < mass ? need : mass;
}
ACCRETE_HD inline uint64_t mass_at(double uniform, uint64_t mass) {
  const uint64_t target = static_cast<uint64_t>(uniform * static_cast<double>(mass));
  return target < mass ? target : mass - 1;
}

}  // namespace accrete
