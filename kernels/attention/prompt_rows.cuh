// The computing side of prompt attention: what a warpgroup keeps of its 64 rows in registers, and the steps over it. Rows and columns lie
// over the lanes of a warp as in mma_bf16: this lane has rows lane / 4 (index 0) and + 8 (index 1) of the warp's 16.
#pragma once

#include <cmath>

#include "kernels/attention/prompt_copies.cuh"
#include "kernels/mma.cuh"
#include "kernels/wgmma.cuh"

namespace accrete {

constexpr float kLowestScore = -INFINITY;

// Within 2^-22 of itself; below 2^-126: 0.
__device__ __forceinline__ float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ __forceinline__ float sum_of_quad(float x) {
  x += __shfl_xor_sync(kAllLanes, x, 1);
  return x + __shfl_xor_sync(kAllLanes, x, 2);
}
__device__ __forceinline__ float top_of_quad(float x) {
  x = fmaxf(x, __shfl_xor_sync(kAllLanes, x, 1));
  return fmaxf(x, __shfl_xor_sync(kAllLanes, x, 2));
}

// Which rows of an item this lane has; the same for every item.
struct RowPlaces {
  int row;        // of the item: the row whose pieces this lane loads as matrices
  int own;        // that row's token
  int offset[2];  // tokens of the lane's rows; beyond any item for rows that never are there
  int out[2];     // where they are in `out` from the item's first row

  // `part`: the warpgroup, `warp` of it.
  __device__ RowPlaces(const PromptArgs& a, int part, int warp, int size) {
    const int lane = threadIdx.x % 32, first = part * a.part_tokens, local = warp * kWarpRows + lane % 16;
    row = part * kPartRows + local;
    own = first + min(local / a.group, a.part_tokens - 1);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int mine = warp * kWarpRows + lane / 4 + 8 * i, token = first + mine / a.group;
      offset[i] = mine / a.group < a.part_tokens ? token : kRows;
      out[i] = (token * a.kv_heads * a.group + mine % a.group) * size;
    }
  }
};

template <int kColumns>
using ScoresOf = float[kColumns / 8][4];
using Scores = ScoresOf<kTile>;
using Weights = uint32_t[kTile / 16][4];  // bf16, as the first operand of products with values

template <int kSize>
struct PromptRows {
  float out[kSize / 8][4];
  float top[2], sum[2];  // sums of this lane's columns alone until the end
  int limit[2];          // own_slot: slots that the row sees
  int least;             // the least limit of the warp's rows, as of the first tile
};

// Pieces of 16 bytes of this lane's row as TileLayout's rows hold them: four matrices, 16 rows x 16 elements from element 16 k.
__device__ __forceinline__ void load_row_matrices(uint32_t (&to)[4], uint32_t base, int row, int k) {
  const int piece = 2 * k + static_cast<int>(threadIdx.x % 32) / 16;
  load_matrices(to, base + piece / 8 * kRowsHalf + row * 128 + (piece % 8 ^ row % 8) * 16);
}

template <int kSize>
__device__ __forceinline__ void load_limits(PromptRows<kSize>& rows, const RowPlaces& places, const PromptArgs& a, const Item& item) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const bool there = places.offset[i] < item.tokens;
    rows.limit[i] = there ? a.own_slot[static_cast<int64_t>(item.token + places.offset[i]) * a.kv_heads + item.head] : INT32_MAX;
  }
}

// Where queries and own keys of an item are in shared memory.
struct OwnOperands {
  uint32_t q, k;
};

// The softmax starts from the rows' own entries: score, weight 1, value.
template <int kSize>
__device__ __forceinline__ void score_own(PromptRows<kSize>& rows, const RowPlaces& places, const OwnOperands& own, float scale) {
  float dot[2] = {};
#pragma unroll
  for (int k = 0; k < kSize / 16; ++k) {
    uint32_t query[4], key[4];
    load_row_matrices(query, own.q, places.row, k);
    load_row_matrices(key, own.k, places.own, k);
#pragma unroll
    for (int i = 0; i < 4; ++i) dot[i % 2] += low_float(query[i]) * low_float(key[i]) + high_float(query[i]) * high_float(key[i]);
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    rows.top[i] = sum_of_quad(dot[i]) * scale;
    rows.sum[i] = threadIdx.x % 4 == 0 ? 1.0f : 0.0f;
  }
}
template <int kSize>
__device__ __forceinline__ void load_own_values(PromptRows<kSize>& rows, const RowPlaces& places, uint32_t own_v) {
#pragma unroll
  for (int k = 0; k < kSize / 16; ++k) {
    uint32_t value[4];
    load_row_matrices(value, own_v, places.own, k);
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      rows.out[2 * k + i / 2][i % 2 * 2] = low_float(value[i]);
      rows.out[2 * k + i / 2][i % 2 * 2 + 1] = high_float(value[i]);
    }
  }
}

// Starts the products of a warpgroup's queries with a tile's keys.
template <int kSize, int kColumns>
__device__ __forceinline__ void start_scores(ScoresOf<kColumns>& scores, uint32_t queries, uint32_t keys) {
  using Layout = TileLayout<kSize>;
  const uint64_t q = swizzled_operand(queries, 16, 1024), k = swizzled_operand(keys, 16, Layout::kEightSlots);
  pin_registers(scores);
  wgmma_fence();
#pragma unroll
  for (int i = 0; i < kSize / 16; ++i) {
    wgmma_bf16(scores, q + (i / 4 * kRowsHalf + i % 4 * 32) / 16, k + (i / 4 * Layout::kBlockBytes + i % 4 * 32) / 16, i > 0);
  }
  wgmma_commit();
  pin_registers(scores);
}

// Starts adding the values of a tile, times their weights.
template <int kSize>
__device__ __forceinline__ void start_values(PromptRows<kSize>& rows, const Weights& weights, uint32_t values) {
  using Layout = TileLayout<kSize>;
  const uint64_t operand = swizzled_operand(values, Layout::kBlockBytes, Layout::kEightSlots);
  pin_registers(rows.out);
  wgmma_fence();
#pragma unroll
  for (int n = 0; n < kTile / 16; ++n) wgmma_bf16_rows(rows.out, weights[n], operand + n * 2 * Layout::kEightSlots / 16);
  wgmma_commit();
  pin_registers(rows.out);
}

// Slots from a row's limit on are not seen by it, whatever their keys are.
template <int kSize, int kColumns>
__device__ __forceinline__ void mask_scores(ScoresOf<kColumns>& scores, const PromptRows<kSize>& rows, int first) {
  if (first + kTile <= rows.least) return;
  const int column = first + static_cast<int>(threadIdx.x % 4) * 2, seen[2] = {rows.limit[0] - column, rows.limit[1] - column};
#pragma unroll
  for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (n * 8 + i % 2 >= seen[i / 2]) scores[n][i] = kLowestScore;
    }
  }
}

// Scores become weights relative to the new maxima; `factor` is what earlier shares must be scaled by.
template <int kSize, int kColumns>
__device__ __forceinline__ void weigh_scores(ScoresOf<kColumns>& scores, PromptRows<kSize>& rows, float (&factor)[2], float scale) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float top = scores[0][2 * i];
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) top = fmaxf(top, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
    top = fmaxf(rows.top[i], top_of_quad(top) * scale);
    factor[i] = exp2_fast(rows.top[i] - top);
    rows.top[i] = top;
    float sum = rows.sum[i] * factor[i];
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
      scores[n][2 * i] = exp2_fast(scores[n][2 * i] * scale - top);
      scores[n][2 * i + 1] = exp2_fast(scores[n][2 * i + 1] * scale - top);
      sum += scores[n][2 * i] + scores[n][2 * i + 1];
    }
    rows.sum[i] = sum;
  }
}

// Rounds weights to bf16: an error of 2^-9 of each at most, and nearly all there is, for products of bf16 are exact and sums are f32. The sum
// of weights is that of the unrounded ones, so a row's result is off by 2^-9 of sum |weight value| at most, before it is rounded itself.
__device__ __forceinline__ void round_weights(Weights& weights, const Scores& scores) {
#pragma unroll
  for (int n = 0; n < kTile / 16; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) weights[n][i] = pack_bf16(scores[2 * n + i / 2][i % 2 * 2], scores[2 * n + i / 2][i % 2 * 2 + 1]);
  }
}
template <int kSize>
__device__ __forceinline__ void scale_out(PromptRows<kSize>& rows, const float (&factor)[2]) {
#pragma unroll
  for (int d = 0; d < kSize / 8; ++d) {
#pragma unroll
    for (int i = 0; i < 4; ++i) rows.out[d][i] *= factor[i / 2];
  }
}

// Four lanes that have words c, c + 4, c + 8, c + 12 of a row, c their number, get words 4 c to 4 c + 3.
__device__ __forceinline__ void gather_quad(uint32_t (&words)[4]) {
  const bool odd = threadIdx.x & 1, upper = threadIdx.x & 2;
#pragma unroll
  for (int i = 0; i < 4; i += 2) {
    const uint32_t other = __shfl_xor_sync(kAllLanes, odd ? words[i] : words[i + 1], 1);
    (odd ? words[i] : words[i + 1]) = other;
  }
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t other = __shfl_xor_sync(kAllLanes, upper ? words[i] : words[i + 2], 2);
    (upper ? words[i] : words[i + 2]) = other;
  }
}

__device__ __forceinline__ void store_16(void* to, const uint32_t (&words)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(words[0]), "r"(words[1]), "r"(words[2]), "r"(words[3]) : "memory");
}

template <int kSize>
__device__ __forceinline__ void store_rows(PromptRows<kSize>& rows, const RowPlaces& places, const PromptArgs& a, const Item& item) {
  bf16* out = a.out + (static_cast<int64_t>(item.token) * a.kv_heads + item.head) * a.group * kSize + threadIdx.x % 4 * 8;
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float inverse = __fdividef(1.0f, sum_of_quad(rows.sum[i]));
    const bool there = places.offset[i] < item.tokens;
#pragma unroll
    for (int d = 0; d < kSize / 8; d += 4) {
      uint32_t words[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) words[j] = pack_bf16(rows.out[d + j][2 * i] * inverse, rows.out[d + j][2 * i + 1] * inverse);
      gather_quad(words);
      if (there) store_16(out + places.out[i] + d * 8, words);
    }
  }
}

}  // namespace accrete
