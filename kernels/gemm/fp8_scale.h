// The factor of a row of e4m3 numbers, and the division by it.
#pragma once

#include <cmath>

#include "kernels/dtype.h"

namespace accrete {

// What a row's scale may be multiplied by in search of the best: 2^(i/8), i < kScaleSteps.
inline constexpr int kScaleSteps = 8;
ACCRETE_HD constexpr float scale_step(int i) {
  constexpr float kSteps[kScaleSteps] = {1.0f, 1.0905077f, 1.1892071f, 1.2968396f, 1.4142135f, 1.5422108f, 1.6817929f, 1.8340081f};
  return kSteps[i];
}

class Fp8Scale {
 public:
  // largest: magnitude of the row's numbers, 0 for a row of zeros.
  ACCRETE_HD explicit Fp8Scale(float largest)
      : scale_(largest > 0 ? largest / fp8::kLargest : 1.0f), inverse_(1.0f / scale_), plain_(scale_ >= 0x1p-80f && scale_ <= 0x1p80f) {}

  ACCRETE_HD float scale() const { return scale_; }
  // Whether `quotient` serves this row. Else divide: the row is infinite, or its steps would fall below the smallest floats.
  ACCRETE_HD bool plain() const { return plain_; }
  // x / scale as IEEE rounds it, as far as e4m3 can tell (fp8_scale_test.cpp tries all bf16 x), in three operations. The sign of what
  // was wrong with the first try is such that -0 stays -0.
  ACCRETE_HD float quotient(float x) const {
    const float near = x * inverse_;
    const float excess = fmaf(near, scale_, -x);
    return fmaf(-excess, inverse_, near);
  }

 private:
  float scale_, inverse_;
  bool plain_;
};

}  // namespace accrete
