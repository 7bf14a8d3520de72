// Eight bf16 numbers at a time on their way to e4m3: what kernels that round rows have in common. Magnitudes of bf16 numbers are
// compared as the integers they are; NaN never counts.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp8.h>

#include "kernels/gemm/fp8_scale.h"

namespace accrete {

inline constexpr int kBfloats = 8;  // of one 16-byte access

struct alignas(16) Bfloats {
  uint32_t pair[kBfloats / 2];  // the first of two numbers in the lower half
};

__device__ inline float low_of(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_of(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

__device__ inline Bfloats load_bfloats(const bf16* from) { return *reinterpret_cast<const Bfloats*>(from); }
// What nobody reads again leaves the first-level cache to what all rows read.
__device__ inline Bfloats load_once(const bf16* from) {
  Bfloats value;
  asm volatile("ld.global.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(value.pair[0]), "=r"(value.pair[1]), "=r"(value.pair[2]), "=r"(value.pair[3])
               : "l"(from));
  return value;
}
__device__ inline void store_bfloats(bf16* to, const Bfloats& value) { *reinterpret_cast<Bfloats*>(to) = value; }

// Constants of the launch: read through the cache that needs no order with stores.
__device__ inline void load_floats(const float* from, float (&to)[kBfloats]) {
#pragma unroll
  for (int i = 0; i < kBfloats; i += 4) {
    const float4 four = __ldg(reinterpret_cast<const float4*>(from + i));
    to[i] = four.x;
    to[i + 1] = four.y;
    to[i + 2] = four.z;
    to[i + 3] = four.w;
  }
}

__device__ inline void widen(const Bfloats& from, float (&to)[kBfloats]) {
#pragma unroll
  for (int i = 0; i < kBfloats / 2; ++i) {
    to[2 * i] = low_of(from.pair[i]);
    to[2 * i + 1] = high_of(from.pair[i]);
  }
}
__device__ inline Bfloats rounded(const float (&from)[kBfloats]) {
  Bfloats to;
#pragma unroll
  for (int i = 0; i < kBfloats / 2; ++i) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(from[2 * i], from[2 * i + 1]);
    to.pair[i] = *reinterpret_cast<const uint32_t*>(&pair);
  }
  return to;
}
// (sum row) column rounded to bf16, as apply_scales leaves it.
__device__ inline void scaled(const Bfloats& sums, float row, const float (&columns)[kBfloats], float (&to)[kBfloats]) {
  widen(sums, to);
#pragma unroll
  for (int i = 0; i < kBfloats; ++i) to[i] = to[i] * row * columns[i];
  widen(rounded(to), to);
}

// The larger magnitudes of both halves.
__device__ inline uint32_t largest_of(const Bfloats& value, uint32_t largest) {
  __nv_bfloat162 most = *reinterpret_cast<const __nv_bfloat162*>(&largest);
#pragma unroll
  for (int i = 0; i < kBfloats / 2; ++i) {
    const uint32_t magnitudes = value.pair[i] & 0x7fff7fffu;
    most = __hmax2(most, *reinterpret_cast<const __nv_bfloat162*>(&magnitudes));
  }
  return *reinterpret_cast<const uint32_t*>(&most);
}
// The largest of both halves over the warp, as bits of a bf16.
__device__ inline uint32_t warp_largest(uint32_t halves) { return __reduce_max_sync(0xffffffffu, max(halves & 0xffffu, halves >> 16)); }
// The same over the block, widened, in every thread. Once a kernel.
template <int kThreads>
__device__ float block_largest(uint32_t halves) {
  constexpr unsigned kWarps = kThreads / 32;
  __shared__ uint32_t sWarp[kWarps];
  const uint32_t mine = warp_largest(halves);
  if (threadIdx.x % 32 == 0) sWarp[threadIdx.x / 32] = mine;
  __syncthreads();
  return low_of(__reduce_max_sync(0xffffffffu, threadIdx.x % 32 < kWarps ? sWarp[threadIdx.x % 32] : 0));
}

__device__ inline void store_quotients(const float (&quotients)[kBfloats], fp8* to) {
  uint2 packed;
  const auto four = [&](int i) {
    const uint32_t low = __nv_cvt_float2_to_fp8x2({quotients[i], quotients[i + 1]}, __NV_SATFINITE, __NV_E4M3);
    return low | static_cast<uint32_t>(__nv_cvt_float2_to_fp8x2({quotients[i + 2], quotients[i + 3]}, __NV_SATFINITE, __NV_E4M3)) << 16;
  };
  packed.x = four(0);
  packed.y = four(4);
  *reinterpret_cast<uint2*>(to) = packed;
}

__device__ inline void store_rounded(const Bfloats& value, const Fp8Scale& scale, fp8* to) {
  float quotients[kBfloats];
  widen(value, quotients);
  if (scale.plain()) {
#pragma unroll
    for (float& quotient : quotients) quotient = scale.quotient(quotient);
  } else {
#pragma unroll
    for (float& quotient : quotients) quotient /= scale.scale();
  }
  store_quotients(quotients, to);
}

}  // namespace accrete
