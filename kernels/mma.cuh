// Tensor-core and copy instructions that kernels share, as inline PTX (PTX ISA 8.5, sections 9.7.14 and 9.7.9).
#pragma once

#include <cuda_bf16.h>

#include <cstdint>

#include "kernels/dtype.h"

namespace accrete {

// d[16 x 8] += a[16 x 16] b[16 x 8], bf16 operands, f32 sums. Lane i, with r = i / 4 and c = 2 (i % 4):
//   a: {[r][c, c+1], [r+8][c, c+1], [r][c+8, c+9], [r+8][c+8, c+9]}   b: {[c, c+1][r], [c+8, c+9][r]}   d: {[r][c, c+1], [r+8][c, c+1]}
__device__ inline void mma_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  asm(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// The same for eight rows: rows 8 to 15 of a are zero, those of d not kept.
__device__ inline void mma_bf16_upper(float (&d)[2], uint32_t a0, uint32_t a2, uint32_t b0, uint32_t b1) {
  asm(
      "{\n\t.reg .f32 low0, low1;\n\t"
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, low0, low1}, {%2, %6, %3, %6}, {%4, %5}, {%0, %1, %7, %7};\n\t}"
      : "+f"(d[0]), "+f"(d[1])
      : "r"(a0), "r"(a2), "r"(b0), "r"(b1), "r"(0), "f"(0.0f));
}

// Two floats as one register of bf16, the first in the lower half.
__device__ inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline float low_float(uint32_t pair) { return __uint_as_float(pair << 16); }
__device__ inline float high_float(uint32_t pair) { return __uint_as_float(pair & 0xffff0000u); }

// 16 bytes that are read once: past L1, and the first that L2 drops.
__device__ inline uint4 load_once(const void* from) {
  uint4 value;
  uint64_t policy;
  asm("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  asm volatile("ld.global.L1::no_allocate.L2::cache_hint.v4.u32 {%0, %1, %2, %3}, [%4], %5;"
               : "=r"(value.x), "=r"(value.y), "=r"(value.z), "=r"(value.w)
               : "l"(from), "l"(policy));
  return value;
}

// Four 8 x 8 matrices of 16-bit elements from shared memory; lane i gives the address of row i % 8 of matrix i / 8.
__device__ inline void load_matrices(uint32_t (&to)[4], uint32_t shared_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address));
}
__device__ inline void load_matrices_transposed(uint32_t (&to)[4], uint32_t shared_address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(shared_address));
}

// 16 bytes from global to shared memory, in the background; zeros when `there` is false.
__device__ inline void copy_async(uint32_t shared_address, const void* from, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address), "l"(from), "r"(there ? 16 : 0));
}
__device__ inline void commit_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
__device__ inline void wait_copies() { asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory"); }

}  // namespace accrete
