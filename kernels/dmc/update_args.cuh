// What the update kernels are told: a DmcUpdate as plain pointers, by value.
#pragma once

#include "kernels/dmc/dmc_update.h"

namespace accrete {

struct UpdateArgs {
  const bf16* qkv;          // [T, (Hq + 2 Hkv) D], rows qkv_stride apart
  int64_t qkv_stride;
  const float* cos;         // [T, D/2]
  const float* sin;
  bf16* q;                  // [T, Hq, D]
  bf16* own_k;              // [T, Hkv, D]
  bf16* own_v;
  int32_t* own_slot;        // [T, Hkv]
  float* weight;            // [T, Hkv]
  int32_t* age;             // [T, Hkv]
  const double* rates;      // [Hkv]
  const int32_t* row;       // [B_step]
  const int32_t* begin;     // [B_step + 1]
  const int32_t* position;  // [T]
  const uint64_t* key;      // [B_step]
  const int32_t* sequence;  // [T]
  bf16* pages;              // [N, 2, S, D]
  int32_t* slots;           // [B, Hkv] of the layer
  int32_t* segment;         // [B, Hkv] of the layer
  int32_t* page_rows;       // [B, Hkv, max_pages] of the layer
  void* ring_k;             // [B, Hkv, max(W, 1), D] of the layer: bf16, or f32 sums when W == 0
  void* ring_v;
  float* ring_w;            // [B, Hkv, max(W, 1)] of the layer
  PagePoolRef pool;
  DmcParams dmc;
  int layer;                // global
  int page_slots;           // S
  int max_pages;
  int kv_heads;
  int group;                // G
  int first_sequence;       // of this launch, and how many
  int sequences;
};

}  // namespace accrete
