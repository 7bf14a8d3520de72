// The formula of silu_mul, the same bits in all of its kernels.
#pragma once

namespace accrete {

// The quotient is within 2 units of the last place, and 0 where the denominator passes 2^126: gates below -87.
__device__ inline float gated(float gate, float up) { return __fdividef(gate, 1.0f + __expf(-gate)) * up; }

}  // namespace accrete
