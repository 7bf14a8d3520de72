// Decode attention, the end of an item that several workers share: each leaves its part in the plan's memory, and the last to arrive
// merges them in their order, so that results do not depend on who it is.
#pragma once

#include <cfloat>

#include "kernels/attention/decode_plan.h"
#include "kernels/mma.cuh"

namespace accrete {

// How many neighbouring parts of an item of `count` one warp merges. With eight rows a warp has two parts in flight at once, so that a chain of
// few and then of few groups ends sooner than one of all; groups of few parts cost more than they save.
__device__ inline int parts_of_group(int count, int rows) {
  constexpr int kManyRows = 5, kManyParts = 25;
  if (rows >= kManyRows && count >= kManyParts) return count <= 64 ? 8 : count <= 256 ? 16 : kGroupParts;
  return kGroupParts;
}

template <int kSize>
struct Softmax {
  float out[kSize / 8][2];  // product (c, e) = out[8 c + e]: row lane / 4, components of columns 2 (lane % 4) + {0, 1}
  float top;                // of row lane / 4, log2 domain
  float sum;                // of this lane's columns alone until finish()

  __device__ void clear() {
#pragma unroll
    for (auto& pair : out) pair[0] = pair[1] = 0.0f;
    top = -FLT_MAX;
    sum = 0.0f;
  }
  __device__ void finish() {
    sum += __shfl_xor_sync(0xffffffffu, sum, 1);
    sum += __shfl_xor_sync(0xffffffffu, sum, 2);
  }
};

// Where an item's parts lie, by their index: [row][D] sums, then [row] maxima, then [row] weights of each. A worker has two places, one for
// an item that begins in its range and one for an item that began before.
struct Partials {
  float* memory;
  int floats;        // of a part
  int first_worker;  // whose range the item begins in
  int rows;          // in the layout
  __device__ float* of_part(int index) const {
    return memory + (static_cast<int64_t>(first_worker + index) * 2 + (index == 0 ? 1 : 0)) * floats;
  }
};

template <int kSize>
__device__ void write_partial(float* to, int rows, const Softmax<kSize>& softmax) {
  const int lane = threadIdx.x % 32, g = lane / 4;
  if (g >= rows) return;
#pragma unroll
  for (int c = 0; c < kSize / 64; ++c) {
#pragma unroll
    for (int b = 0; b < 2; ++b) {
      float4* at = reinterpret_cast<float4*>(to + g * kSize + c * 64 + (lane % 4 * 2 + b) * 8);
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        at[i] = make_float4(softmax.out[c * 8 + 4 * i][b], softmax.out[c * 8 + 4 * i + 1][b], softmax.out[c * 8 + 4 * i + 2][b],
                            softmax.out[c * 8 + 4 * i + 3][b]);
      }
    }
  }
  if (lane % 4 == 0) {
    to[rows * kSize + g] = softmax.top;
    to[rows * (kSize + 1) + g] = softmax.sum;
  }
}

// Whether this warp is the last of `count` to come here; the counter returns to zero with the last. The atomic is lane 0's: the barriers of
// the warp before and after it bring what all lanes have written under its release, and what all lanes read afterwards under its acquire.
__device__ inline bool is_last(int32_t* arrived, int count) {
  __syncwarp();
  unsigned before = 0;
  if (threadIdx.x % 32 == 0) {
    asm volatile("atom.acq_rel.gpu.global.inc.u32 %0, [%1], %2;"
                 : "=r"(before)
                 : "l"(__cvta_generic_to_global(arrived)), "r"(static_cast<unsigned>(count - 1))
                 : "memory");
  }
  __syncwarp();
  return static_cast<int>(__shfl_sync(0xffffffffu, before, 0)) == count - 1;
}

// Parts first, first + step, ..., `count` of them.
struct PartRun {
  int first, step, count;
  __device__ int operator[](int i) const { return first + i * step; }
};

// Where a merged result goes: rows of the output [rows, D]; or null: into the run's first part.
struct Merged {
  bf16* out;
  int rows;
};

// kRows: rows of the layout at most. All loads of a part are issued before the first is used, so nothing in here depends on how many rows
// there really are: those beyond are read again from the last one and not written.
template <int kSize, int kRows>
struct MergeLanes {
  static constexpr int kEach = kSize / 32;       // components of a row in a lane
  static constexpr int kMostRuns = 2;            // parts of a run are at most so many times 32
  static constexpr int kAtOnce = kRows == 8 ? 2 : 4;  // parts whose loads are in flight
  struct alignas(kEach * 4) Vector { float value[kEach]; };
  float sums[kRows][kEach] = {};
  float factor[kRows][kMostRuns];                // of part 32 r + lane
  float top[kRows], weight[kRows];

  // Maxima and weights of all parts at once, a part a lane.
  __device__ void scales(const Partials& partials, const PartRun& run) {
    const int lane = threadIdx.x % 32;
    float tops[kRows][kMostRuns], weights[kRows][kMostRuns];
#pragma unroll
    for (int r = 0; r < kMostRuns; ++r) {
      const bool there = r * 32 + lane < run.count;
      const float* from = partials.of_part(run[there ? r * 32 + lane : 0]) + partials.rows * kSize;
#pragma unroll
      for (int g = 0; g < kRows; ++g) {
        const int row = min(g, partials.rows - 1);
        tops[g][r] = __ldcg(from + row);
        weights[g][r] = __ldcg(from + partials.rows + row);
        if (!there) tops[g][r] = -FLT_MAX, weights[g][r] = 0.0f;
      }
    }
#pragma unroll
    for (int g = 0; g < kRows; ++g) {
      top[g] = fmaxf(tops[g][0], tops[g][1]);
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) top[g] = fmaxf(top[g], __shfl_xor_sync(0xffffffffu, top[g], offset));
#pragma unroll
      for (int r = 0; r < kMostRuns; ++r) factor[g][r] = exp2f(tops[g][r] - top[g]);
      weight[g] = weights[g][0] * factor[g][0] + weights[g][1] * factor[g][1];
#pragma unroll
      for (int offset = 16; offset > 0; offset /= 2) weight[g] += __shfl_xor_sync(0xffffffffu, weight[g], offset);
    }
  }

  __device__ void add(const Partials& partials, const PartRun& run) {
    for (int p = 0; p < run.count; p += kAtOnce) {
      Vector vectors[kAtOnce][kRows];
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        const float* from = partials.of_part(run[min(p + i, run.count - 1)]) + threadIdx.x % 32 * kEach;
#pragma unroll
        for (int g = 0; g < kRows; ++g) vectors[i][g] = load(from + min(g, partials.rows - 1) * kSize);
      }
#pragma unroll
      for (int i = 0; i < kAtOnce; ++i) {
        if (p + i >= run.count) break;
#pragma unroll
        for (int g = 0; g < kRows; ++g) {
          const float share = __shfl_sync(0xffffffffu, p + i < 32 ? factor[g][0] : factor[g][1], (p + i) % 32);
#pragma unroll
          for (int e = 0; e < kEach; ++e) sums[g][e] += share * vectors[i][g].value[e];
        }
      }
    }
  }

  // Past L1: others have written it.
  __device__ static Vector load(const float* from) {
    Vector vector;
    if constexpr (kEach == 4) *reinterpret_cast<float4*>(&vector) = __ldcg(reinterpret_cast<const float4*>(from));
    else *reinterpret_cast<float2*>(&vector) = __ldcg(reinterpret_cast<const float2*>(from));
    return vector;
  }

  __device__ void write_out(const Merged& merged) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int g = 0; g < kRows; ++g) {
      if (g >= merged.rows) break;
      const float inverse = 1.0f / weight[g];
      struct alignas(kEach * 2) Packed { uint32_t pair[kEach / 2]; } packed;
#pragma unroll
      for (int i = 0; i < kEach / 2; ++i) packed.pair[i] = pack_bf16(sums[g][2 * i] * inverse, sums[g][2 * i + 1] * inverse);
      *reinterpret_cast<Packed*>(merged.out + g * kSize + lane * kEach) = packed;
    }
  }

  __device__ void write_part(float* to, int rows) const {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int g = 0; g < kRows; ++g) {
      if (g >= rows) break;
#pragma unroll
      for (int i = 0; i < kEach; ++i) to[g * kSize + lane * kEach + i] = sums[g][i];
      if (lane == 0) to[rows * kSize + g] = top[g];
      if (lane == 0) to[rows * (kSize + 1) + g] = weight[g];
    }
  }
};

// At most 64 parts. Not inlined: it runs once an item at most, and its registers are none of the loop's.
template <int kSize, int kRows>
__device__ __noinline__ void merge_rows(const Partials partials, const PartRun run, const Merged merged) {
  MergeLanes<kSize, kRows> lanes;
  lanes.scales(partials, run);
  lanes.add(partials, run);
  if (merged.out) return lanes.write_out(merged);
  __syncwarp();  // every lane has read the part that is written now
  lanes.write_part(partials.of_part(run.first), partials.rows);
}

template <int kSize>
__device__ inline void merge_parts(const Partials& partials, const PartRun& run, const Merged& merged) {
  if (partials.rows == 1) merge_rows<kSize, 1>(partials, run, merged);
  else if (partials.rows <= 4) merge_rows<kSize, 4>(partials, run, merged);
  else merge_rows<kSize, 8>(partials, run, merged);
}

}  // namespace accrete
