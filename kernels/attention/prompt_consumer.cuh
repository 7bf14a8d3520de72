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
    for (uint32_t parity = 0;; parity ^= 1) {
      wait_phase(&s_.q_full[group_], parity);
      const Item item = take_item(s_.item[group_]);
      if (item.tokens == 0) break;
      attend(item);
    }
    if (group_ == 0) wait_turn();  // as many waits as passes
  }

 private:
  // Tiles from the last to the first.
  __device__ __forceinline__ void attend(const Item& item) {
    PromptRows<kSize> rows;
    Scores scores;
    Weights weights;
    float factor[2];
    int first = (item.tiles() - 1) * kTile;
    load_limits(rows, places_, a_, item);
    const RingPlace<Shared::kStages> own = k_;
    k_.advance();
    wait_phase(&s_.k_full[k_.stage], k_.parity);
    if (item.slots - first <= kTile / 2) {
      auto& narrow = reinterpret_cast<ScoresOf<kTile / 2>&>(scores);
      begin_tiles<kTile / 2>(rows, narrow, own, first);
#pragma unroll
      for (int n = kTile / 16; n < kTile / 8; ++n) {
#pragma unroll
        for (int i = 0; i < 4; ++i) scores[n][i] = 0.0f;
      }
    } else {
      begin_tiles<kTile>(rows, scores, own, first);
    }
    round_weights(weights, scores);
    pin_registers(weights);
    clear_missing(item, first);
#pragma unroll 1
    while (first > 0) {
      first -= kTile;
      wait_phase(&s_.k_full[k_.stage], k_.parity);
      wait_turn();
      start_scores<kSize, kTile>(scores, queries(), keys());
      wait_phase(&s_.v_full[v_.stage], v_.parity);
      start_values(rows, weights, values());
      pass_turn();
      wgmma_wait<1>();
      pin_registers(scores);
      release_keys(first);
      mask_scores<kSize, kTile>(scores, rows, first);
      weigh_scores<kSize, kTile>(scores, rows, factor, a_.scale);
      hold_wait(rows.sum[0] + rows.sum[1], &s_.unread);
      finish_values(rows, weights);
      round_weights(weights, scores);
      scale_out(rows, factor);
    }
    wait_phase(&s_.v_full[v_.stage], v_.parity);
    start_values(rows, weights, values());
    finish_values(rows, weights);
    store_rows(rows, places_, a_, item);
  }

  template <int kColumns>
  __device__ __forceinline__ void begin_tiles(PromptRows<kSize>& rows, ScoresOf<kColumns>& scores, const RingPlace<Shared::kStages>& own, int first) {
    float factor[2];
    start_scores<kSize, kColumns>(scores, queries(), keys());
    start_from_own(rows, own);
    wgmma_wait<0>();
    pin_registers(scores);
    release_keys(first);
    rows.least = __shfl_sync(kAllLanes, rows.limit[0], 0);  // limits do not decrease with the row; here, where they have long been loaded
    mask_scores<kSize, kColumns>(scores, rows, first);
    weigh_scores<kSize, kColumns>(scores, rows, factor, a_.scale);
    pin_registers(scores);
    scale_out(rows, factor);
  }

  __device__ __forceinline__ void start_from_own(PromptRows<kSize>& rows, const RingPlace<Shared::kStages>& own) {
    wait_phase(&s_.k_full[own.stage], own.parity);
    score_own(rows, places_, {shared_address(s_.q), shared_address(s_.k[own.stage])}, a_.scale);
    release(&s_.k_empty[own.stage]);
    wait_phase(&s_.v_full[v_.stage], v_.parity);
    load_own_values(rows, places_, values());
    release(&s_.v_empty[v_.stage]);
    v_.advance();
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
    if (first == 0) release(&s_.q_empty[group_]);
  }
  __device__ __forceinline__ uint32_t queries() const { return shared_address(s_.q) + group_ * kPartBytes; }
  __device__ __forceinline__ uint32_t keys() const { return shared_address(s_.k[k_.stage]); }
  __device__ __forceinline__ uint32_t values() const { return shared_address(s_.v[v_.stage]); }

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
  RingPlace<Shared::kStages> k_, v_;
};

}  // namespace accrete
