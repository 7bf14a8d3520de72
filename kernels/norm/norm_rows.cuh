// What the kernels of rms_norm have in common: a block of 256 threads takes a row, thread i its 16-byte pieces i, i + 256, ..., so
// that all of them add squares in the same order.
#pragma once

namespace accrete {

inline constexpr int kNormThreads = 256;  // 8 warps: a 4096-wide bf16 row is two 16-byte loads of x a thread

// The sum over the block, in every thread. Once a kernel.
__device__ inline float block_sum(float value) {
  constexpr int kWarp = 32;
  __shared__ float sWarp[kNormThreads / kWarp];
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  if (threadIdx.x % kWarp == 0) sWarp[threadIdx.x / kWarp] = value;
  __syncthreads();
  float sum = 0;
#pragma unroll
  for (int warp = 0; warp < kNormThreads / kWarp; ++warp) sum += sWarp[warp];
  return sum;
}

// 1 / sqrt(mean + eps) of a row of `width`.
__device__ inline float norm_scale(float squares, int width, float eps) { return 1.0f / sqrtf(block_sum(squares) / width + eps); }

}  // namespace accrete
