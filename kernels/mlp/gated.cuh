// The formula of silu_mul, the same bits in all of its kernels.
#pragma once

namespace accrete {

// In the multi-function unit's own functions, which are within 2 (e^x) and 1 (1 / x) units of the last place and know no subnormal numbers:
// beside 1 an exponential so small is nothing, and gates below -87, whose reciprocal would be so small, give 0.
__device__ inline float gated(float gate, float up) {
  constexpr float kLog2E = 1.44269504f;
  float power, reciprocal;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(-kLog2E * gate));
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(1.0f + power));
  return gate * reciprocal * up;
}

}  // namespace accrete
