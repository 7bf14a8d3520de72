// A warpgroup's way through the items of prompt attention. The two warpgroups of a block have the same tiles and different rows, and take
// turns at starting products: while one's products run, the other has its scores become weights. Within a group, the products of a tile's
// keys run while the weights of the tile before meet their values.
#pragma once

#include "kernels/attention/prompt_rows.cuh"

namespace accrete {

template <int kSize>
class PromptConsumer {
 public:
  using Shared = PromptShared<kSize>;
  using Layout = TileLayout<kSize>;

  // `group`: 0 or 1, of the warpgroup; the same in all lanes.
  __device__ __forceinline__ PromptConsumer(const PromptArgs& args, Shared& shared, int group)
      : a_(args), s_(shared), group_(group), places_(args, group, static_cast<int>(threadIdx.x) / 32 % kGroupWarps, kSize) {}

  __device__ __forceinline__ void run() {
    if (group_ == 1) pass_turn();
    Item item = take_item();
    if (item.tokens > 0) attend_all(item);
    if (group_ == 0) wait_turn();  // as many waits as passes
  }

 private:
  __device__ __forceinline__ void attend_all(Item item) {
    Scores scores;
    PromptRows<kSize> rows;
    begin(rows, scores, item);
#pragma unroll 1
    for (;;) {
      attend(rows, scores, item);
      const Item next = take_item();
      if (next.tokens == 0) break;
      begin(rows, scores, next);
      store_rows(rows, places_, a_, item);
      item = next;
    }
    store_rows(rows, places_, a_, item);
  }

  __device__ __forceinline__ Item take_item() {
    wait_phase(&s_.q_full[q_.stage], q_.parity);
    return s_.item[q_.stage];
  }

  // The first products of an item, of its last tile, run while the rows of the item before are stored.
  __device__ __forceinline__ void begin(PromptRows<kSize>& rows, Scores& scores, const Item& item) {
    load_limits(rows, places_, a_, item);
    own_ = k_;
    k_.advance();
    wait_phase(&s_.k_full[k_.stage], k_.parity);
    start_scores<kSize>(scores, queries(), keys());
  }

  // Tiles from the last to the first, whose scores are under way.
  __device__ __forceinline__ void attend(PromptRows<kSize>& rows, Scores& scores, const Item& item) {
    Weights weights;
    float factor[2];
    int first = (item.tiles() - 1) * kTile;
    wait_phase(&s_.k_full[own_.stage], own_.parity);
    score_own(rows, places_, {shared_address(s_.q[q_.stage]), shared_address(s_.k[own_.stage])}, a_.scale);
    release(&s_.k_empty[own_.stage]);
    wgmma_wait<0>();
    pin_registers(scores);
    release_keys(first);
    rows.least = __shfl_sync(kAllLanes, rows.limit[0], 0);  // limits do not decrease with the row
    if (item.slots - first <= kTile / 2) {
      auto& seen = reinterpret_cast<ScoresOf<kTile / 2>&>(scores);
      mask_scores(seen, rows, first);
      weigh_scores(seen, rows, factor, a_.scale);
#pragma unroll
      for (int n = kTile / 16; n < kTile / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) scores[n][i] = 0.0f;
      }
    } else {
      mask_scores(scores, rows, first);
      weigh_scores(scores, rows, factor, a_.scale);
    }
    round_weights(weights, scores);
    pin_registers(weights);
    wait_phase(&s_.v_full[v_.stage], v_.parity);
    start_out(rows, places_, values(), factor);
    release(&s_.v_empty[v_.stage]);
    v_.advance();
    clear_missing(item, first);
    const uint32_t q = queries();
#pragma unroll 1
    while (first > 0) {
      first -= kTile;
      const uint32_t k = keys(), v = values();
      wait_phase(&s_.k_full[k_.stage], k_.parity);
      wait_turn();
      start_scores<kSize>(scores, q, k);
      wait_phase(&s_.v_full[v_.stage], v_.parity);
      start_values(rows, weights, v);
      pass_turn();
      wgmma_wait<1>();
      pin_registers(scores);
      release_keys(first);
      mask_scores(scores, rows, first);
      weigh_scores(scores, rows, factor, a_.scale);
      hold_wait(rows.sum[0] + rows.sum[1], &s_.unread);
      finish_values(rows, weights);
      round_weights(weights, scores);
#ifdef LAZY
      if (__any_sync(kAllLanes, factor[0] != 1.0f || factor[1] != 1.0f)) scale_out(rows, factor);
#else
      scale_out(rows, factor);
#endif
    }
    q_.advance();
    wait_phase(&s_.v_full[v_.stage], v_.parity);
    start_values(rows, weights, values());
    finish_values(rows, weights);
  }

  __device__ __forceinline__ void finish_values(PromptRows<kSize>& rows, Weights& weights) {
    wgmma_wait<0>();
    pin_registers(rows.out);
    pin_registers(weights);
    release(&s_.v_empty[v_.stage]);
    v_.advance();
  }
  __device__ __forceinline__ void release_keys(int first) {
    release(&s_.k_empty[k_.stage]);
    k_.advance();
    if (first == 0) release(&s_.q_empty[q_.stage]);
  }
  // Where they lie in shared memory. Products want that in uniform registers: the compiler computes it there only when it sees that the
  // value comes from one lane, else anew for each product.
  __device__ __forceinline__ static uint32_t uniform(uint32_t address) { return __shfl_sync(kAllLanes, address, 0); }
  __device__ __forceinline__ uint32_t queries() const { return uniform(shared_address(s_.q[q_.stage]) + group_ * kPartBytes); }
  __device__ __forceinline__ uint32_t keys() const { return uniform(shared_address(s_.k[k_.stage])); }
  __device__ __forceinline__ uint32_t values() const { return uniform(shared_address(s_.v[v_.stage])); }

  // Slots that the head does not have lie in its last page with whatever was there: their weights are 0, but 0 times NaN is none. Both
  // warpgroups store the same zeros.
  __device__ __forceinline__ void clear_missing(const Item& item, int first) {
    const int begin = item.held - first, end = min((begin + kBoxSlots - 1) / kBoxSlots * kBoxSlots, kTile);
    if (begin >= end) return;
    wait_phase(&s_.v_full[v_.stage], v_.parity);
    constexpr int kPieces = kSize / 8;
    const int thread = threadIdx.x % (32 * kGroupWarps);
    for (int slot = begin + thread / kPieces; slot < end; slot += 32 * kGroupWarps / kPieces) {
      const int piece = thread % kPieces;
      uint8_t* to = s_.v[v_.stage] + slot / 8 * Layout::kEightSlots + piece / 8 * Layout::kBlockBytes + slot % 8 * 128 + piece % 8 * 16;
      *reinterpret_cast<uint4*>(to) = make_uint4(0, 0, 0, 0);
    }
    publish_stores();
    wait_named(kClearBarrier + group_, 32 * kGroupWarps);
  }

  // By each warp, once all its reads are done.
  __device__ __forceinline__ void release(uint64_t* empty) const {
    __syncwarp();
    if (threadIdx.x % 32 == 0) arrive(empty);
  }
  __device__ __forceinline__ void wait_turn() const { wait_named(kTurnBarrier + group_, 32 * kGroupWarps * kRowGroups); }
  __device__ __forceinline__ void pass_turn() const { arrive_named(kTurnBarrier + 1 - group_, 32 * kGroupWarps * kRowGroups); }

  static constexpr int kTurnBarrier = 1;   // and 2
  static constexpr int kClearBarrier = 3;  // and 4
  const PromptArgs& a_;
  Shared& s_;
  int group_;
  RowPlaces places_;
  RingPlace<Shared::kItemStages> q_;
  RingPlace<Shared::kKeyStages> k_, own_;
  RingPlace<Shared::kValueStages> v_;
};

}  // namespace accrete
