// What the update kernels are told: a DmcUpdate as plain pointers, by value. What a decode reads first stands first.
#pragma once

#include "kernels/dmc/dmc_update.h"

namespace accrete {

// Division by a number that the host knows; of n with n * divisor < 2^32.
struct Divisor {
  uint32_t divisor = 1, factor = 0;

  static Divisor by(int64_t number) {
    const auto d = static_cast<uint32_t>(number);
    return {d, d > 1 ? static_cast<uint32_t>(((uint64_t{1} << 32) + d - 1) / d) : 0};
  }
  __device__ int quotient(int n) const { return divisor > 1 ? static_cast<int>(__umulhi(n, factor)) : n; }
  __device__ int remainder(int n) const { return n - quotient(n) * static_cast<int>(divisor); }
};

struct UpdateArgs {
  const int32_t* row;       // [B_step]
  const bf16* qkv;          // [T, (Hq + 2 Hkv) D]
  int qkv_row_bytes;        // from a row to the next
  int kv_heads;
  int group;                // G
  float per_query;          // 1 / G
  Divisor query_pairs;      // ceil(G / 2)
  const float* cos;         // [T, D/2]
  const float* sin;
  const int32_t* position;  // [T]
  int32_t* slots;           // [B, Hkv] of the layer
  int32_t* segment;         // [B, Hkv] of the layer
  int32_t* page_rows;       // [B, Hkv, max_pages] of the layer
  int max_pages;
  int page_slots;           // S
  Divisor by_page_slots;
  Divisor by_window;        // max(W, 1)
  DmcParams dmc;
  int layer;                // global
  void* ring_k;             // [B, Hkv, max(W, 1), D] of the layer: bf16, or f32 sums when W == 0
  void* ring_v;
  float* ring_w;            // [B, Hkv, max(W, 1)] of the layer
  bf16* q;                  // [T, Hq, D]
  int32_t* own_slot;        // [T, Hkv]
  bf16* pages;              // [N, 2, S, D]
  PagePoolRef pool;
  const double* rates;      // [Hkv]
  const uint64_t* key;      // [B_step]
  // Prompts alone.
  const int32_t* begin;     // [B_step + 1]
  const int32_t* sequence;  // [T]
  bf16* own_k;              // [T, Hkv, D]
  bf16* own_v;
  float* weight;            // [Hkv, T]
  uint32_t* appends;        // [Hkv, 2, ceil(T / 32)]: a bit a token, and the slots before each word's first token
  int tokens;               // T
  int size;                 // D
  int first_sequence;       // of this launch, and how many; the sequences before have a token each
  int sequences;
};

}  // namespace accrete
