// The steps of an update that decode and prompt kernels share, so that they leave the same bits however a text was cut into steps. Each is
// run by a warp but for decide_token.
#pragma once

#include "kernels/dmc/decide.h"
#include "kernels/dmc/head_lanes.cuh"
#include "kernels/dmc/update_args.cuh"
#include "kernels/paging/take_page.cuh"

namespace accrete {

// One token at one KV head.
struct HeadToken {
  int t;
  int sequence;  // of the step
  int head;
};

// Rows of qkv hold q heads, k heads, v heads, D components each.
__device__ inline const bf16* token_row(const UpdateArgs& a, int t) {
  return reinterpret_cast<const bf16*>(reinterpret_cast<const char*>(a.qkv) + static_cast<int64_t>(t) * a.qkv_row_bytes);
}
__device__ inline const bf16* query_of(const UpdateArgs& a, const HeadToken& at, int query, int size) {
  return token_row(a, at.t) + (at.head * a.group + query) * size;
}
__device__ inline const bf16* key_of(const UpdateArgs& a, const HeadToken& at, int size) {
  return token_row(a, at.t) + (a.kv_heads * a.group + at.head) * size;
}

// What a decision is made of: the decision neuron and the mean of the importance neurons, both 0 but in learned mode.
struct Neurons {
  int position;
  float decision = 0.0f, importance = 0.0f;
};
__device__ inline Neurons load_neurons(const UpdateArgs& a, const HeadToken& at, int size) {
  Neurons neurons{a.position[at.t]};
  if (a.dmc.mode != DmcMode::learned) return neurons;
  neurons.decision = static_cast<float>(key_of(a, at, size)[size - 1]);
  const bf16* last = query_of(a, at, 0, size) + size - 1;
#pragma unroll 8
  for (int g = 0; g < a.group; ++g) neurons.importance += static_cast<float>(last[g * size]);
  neurons.importance *= a.per_query;
  return neurons;
}

// alpha and w of a token.
__device__ inline Decision decide_token(const UpdateArgs& a, const HeadToken& at, const Neurons& neurons) {
  Decision made;
  if (a.dmc.mode == DmcMode::learned) {
    DmcParams dmc = a.dmc;
    dmc.bf16_decision = false;  // it is bf16 as it comes
    made = decide_learned(dmc, neurons.decision, neurons.importance);
  }
  if (a.dmc.mode == DmcMode::synthetic) {
    made = decide_synthetic(a.dmc, {a.key[at.sequence], a.layer, a.dmc.kv_head_begin + at.head, neurons.position}, a.rates[at.head]);
  }
  made.accumulate = made.accumulate && neurons.position > 0;
  return made;
}

// The key (lanes 0-15) and value (16-31) as they came.
template <int kPairs>
__device__ inline PackedLanes<kPairs> load_key_value(const UpdateArgs& a, const HeadToken& at) {
  constexpr int kSize = HeadLanes<kPairs>::kSize;
  return PackedLanes<kPairs>::load(key_of(a, at, kSize) + half_of_warp() * a.kv_heads * kSize);
}

// The key's decision neuron becomes 0 where it is one: what averages see, and the cache holds.
template <int kPairs>
__device__ inline void zero_neuron(const UpdateArgs& a, PackedLanes<kPairs>& token) {
  token.zero_last(a.dmc.mode == DmcMode::learned && half_of_warp() == 0);
}

// The half-warp's query of the group, rotated, to a.q.
template <int kPairs>
__device__ inline void store_query(const UpdateArgs& a, const HeadToken& at, int query, PackedLanes<kPairs> packed, const Angles<kPairs>& angles) {
  constexpr int64_t kSize = HeadLanes<kPairs>::kSize;
  const bool learned = a.dmc.mode == DmcMode::learned;
  packed.zero_last(learned);
  auto lanes = HeadLanes<kPairs>::unpacked(packed);
  lanes.rotate(angles);
  packed = lanes.packed();
  packed.zero_last(learned);
  packed.store(a.q + (static_cast<int64_t>(at.t * a.kv_heads + at.head) * a.group + query) * kSize);
}

// Weighted sums over the tokens of a window, oldest first: the key's on lanes 0-15, the value's on the others.
template <int kPairs>
struct WindowSum {
  HeadLanes<kPairs> sum{};
  float weight = 0.0f;

  __device__ void add(float w, const PackedLanes<kPairs>& token) {
    sum.add_scaled(w, token);
    weight += w;
  }
  __device__ HeadLanes<kPairs> mean() const {
    HeadLanes<kPairs> out = sum;
    out.scale(1.0f / weight);
    return out;
  }
};

// Entries of a head's ring: its key on lanes 0-15, its value on the others.
template <int kPairs>
struct Ring {
  static constexpr int kSize = HeadLanes<kPairs>::kSize;
  bf16* entries;   // [W, D]
  float* weights;  // [W]
  int window;

  __device__ Ring(const UpdateArgs& a, int table) : window(a.dmc.window) {
    entries = static_cast<bf16*>(half_of_warp() == 0 ? a.ring_k : a.ring_v) + static_cast<int64_t>(table) * (window * kSize);
    weights = a.ring_w + static_cast<int64_t>(table) * window;
  }
  __device__ void store(int entry, const PackedLanes<kPairs>& token, float weight) {
    token.store(entries + entry * kSize);
    if (lane_of_warp() == 0) weights[entry] = weight;
  }
  __device__ PackedLanes<kPairs> token(int entry) const { return PackedLanes<kPairs>::load(entries + entry * kSize); }
  // Of 0 .. 2 W - 1.
  __device__ int wrapped(int entry) const { return static_cast<int>(min(static_cast<unsigned>(entry), static_cast<unsigned>(entry - window))); }
};

// The open slot's key rotated as the cache holds it, and its value; lanes 16-31 turn nothing.
template <int kPairs>
__device__ inline PackedLanes<kPairs> cache_entry(const UpdateArgs& a, HeadLanes<kPairs> mean, const Angles<kPairs>& angles) {
  HeadLanes<kPairs> turned = mean;
  turned.rotate(angles);
  if (half_of_warp() == 0) mean = turned;
  auto packed = mean.packed();
  zero_neuron(a, packed);
  return packed;
}

// The entry of slot `within` of a page.
template <int kPairs>
__device__ inline void store_entry(const UpdateArgs& a, int page, int within, const PackedLanes<kPairs>& entry) {
  constexpr int kSize = HeadLanes<kPairs>::kSize;
  entry.store(a.pages + static_cast<int64_t>(page) * (2 * a.page_slots * kSize) + (half_of_warp() * a.page_slots + within) * kSize);
}

template <int kPairs>
__device__ inline void store_own(const UpdateArgs& a, const HeadToken& at, const PackedLanes<kPairs>& entry) {
  constexpr int64_t kSize = HeadLanes<kPairs>::kSize;
  entry.store((half_of_warp() == 0 ? a.own_k : a.own_v) + static_cast<int64_t>(at.t * a.kv_heads + at.head) * kSize);
}

}  // namespace accrete
