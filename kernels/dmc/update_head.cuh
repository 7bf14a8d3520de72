// The steps of an update that decode and prompt kernels share; each is run by a warp.
#pragma once

#include "kernels/dmc/decide.h"
#include "kernels/dmc/head_lanes.cuh"
#include "kernels/dmc/update_args.cuh"
#include "kernels/paging/take_page.cuh"

namespace accrete {

// Where one token's vectors lie in a row of qkv.
template <int kSize>
struct TokenVectors {
  const bf16* q;  // [G, D] of the head's group
  const bf16* k;  // [D]
  const bf16* v;  // [D]
};
template <int kSize>
__device__ inline TokenVectors<kSize> token_vectors(const UpdateArgs& a, int64_t t, int head) {
  const bf16* row = a.qkv + t * a.qkv_stride;
  const int64_t queries = static_cast<int64_t>(a.kv_heads) * a.group;
  return {row + static_cast<int64_t>(head) * a.group * kSize, row + (queries + head) * kSize, row + (queries + a.kv_heads + head) * kSize};
}

// The decision from what one thread has at hand.
__device__ inline Decision decide_token(const UpdateArgs& a, int sequence, int head, int64_t t, float k_last, float importance) {
  if (a.dmc.mode == DmcMode::off) return {};
  if (a.dmc.mode == DmcMode::learned) return decide_learned(a.dmc, k_last, importance);
  return decide_synthetic(a.dmc, {a.key[sequence], a.layer, a.dmc.kv_head_begin + head, a.position[t]}, a.rates[head]);
}

// Rotates the group's queries into a.q. Returns the mean of their last components (learned mode, before zeroing), in every lane.
template <int kPairs>
__device__ inline float rotate_queries(const UpdateArgs& a, int64_t t, int head, const float (&cos)[kPairs], const float (&sin)[kPairs]) {
  using Lanes = HeadLanes<kPairs>;
  const int lane = threadIdx.x % 32;
  const bool learned = a.dmc.mode == DmcMode::learned;
  const auto vectors = token_vectors<Lanes::kSize>(a, t, head);
  bf16* out = a.q + (t * a.kv_heads + head) * a.group * Lanes::kSize;
  float importance = 0.0f;
  for (int g = 0; g < a.group; ++g) {
    Lanes q = Lanes::load(vectors.q + g * Lanes::kSize, lane);
    if (learned) {
      importance += q.last();
      q.zero_last(lane);
    }
    Lanes turned = q.rotated(cos, sin);
    if (learned) turned.zero_last(lane);
    turned.store(out + g * Lanes::kSize, lane);
  }
  return importance / static_cast<float>(a.group);
}

// The slot's entry goes to its page; nothing happens to a slot that has none (the pool ran dry: the row is void).
template <int kPairs>
__device__ inline void store_entry(const UpdateArgs& a, const int32_t* pages, int slot, const HeadLanes<kPairs>& k, const HeadLanes<kPairs>& v) {
  constexpr int kSize = HeadLanes<kPairs>::kSize;
  if (slot < 0 || slot >= a.max_pages * a.page_slots) return;
  const int64_t page = pages[slot / a.page_slots];
  if (page < 0) return;
  bf16* at = a.pages + (page * 2 * a.page_slots + slot % a.page_slots) * kSize;
  k.store(at, threadIdx.x % 32);
  v.store(at + static_cast<int64_t>(a.page_slots) * kSize, threadIdx.x % 32);
}

}  // namespace accrete
