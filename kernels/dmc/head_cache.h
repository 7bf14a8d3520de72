// HeadCache: the open slot of one (sequence, layer, KV head) while a step's tokens pass through it.
#pragma once

#include <algorithm>

#include "kernels/dmc/decide.h"
#include "kernels/paging/cache_ref.h"

namespace accrete {

// One entry of a cache: an averaged key (unrotated or rotated) and value.
struct SlotEntry {
  float* k;  // [D]
  float* v;  // [D]
};

class HeadCache {
 public:
  HeadCache(const CacheRef& cache, const DmcParams& dmc, int layer, int row, int head)
      : cache_(cache),
        dmc_(dmc),
        layer_(layer),
        row_(row),
        head_(head),
        slots_(cache.slots(layer, row, head)),
        size_(cache.pages.shape[3]) {}

  int32_t slots() const { return slots_; }

  // Opens a slot; false, and nothing changes, when it needs a page and there is none (the pool has flagged it).
  bool append() {
    if (slots_ % cache_.page_slots == 0) {
      const int64_t index = slots_ / cache_.page_slots;
      CHECK(index < cache_.page_rows.shape[3], index, cache_.page_rows.shape[3]);
      const int32_t page = cache_.pool.take();
      if (page == kNoPage) return false;
      cache_.page_rows(layer_, row_, head_, index) = page;
    }
    ++slots_;
    if (cache_.segment.data) cache_.segment(layer_, row_, head_) = 0;
    return true;
  }

  // Adds a token (key before RoPE) to the open slot and writes the slot's average to `mean`.
  void add(const float* k, const float* v, float weight, SlotEntry mean) {
    int32_t& segment = cache_.segment(layer_, row_, head_);
    if (dmc_.window > 0) add_windowed(k, v, weight, segment, mean);
    else add_running(k, v, weight, segment, mean);
    ++segment;
  }

  // The open slot's entry in its page becomes `entry` (key rotated).
  void store(const float* k, const float* v) {
    if (slots_ == 0) return;  // the pool ran dry at the first token: the row is void
    const int32_t slot = slots_ - 1;
    const int32_t page = cache_.page_rows(layer_, row_, head_, slot / cache_.page_slots);
    if (cache_.pages.dtype == DType::bf16) store_as<bf16>(page, slot % cache_.page_slots, k, v);
    else store_as<float>(page, slot % cache_.page_slots, k, v);
  }

  void finish() { cache_.slots(layer_, row_, head_) = slots_; }

 private:
  template <class T>
  void store_as(int32_t page, int32_t slot, const float* k, const float* v) {
    T* base = static_cast<T*>(cache_.pages.data) + page * cache_.pages.stride[0] + slot * size_;
    T* values = base + cache_.pages.stride[1];
    for (int64_t d = 0; d < size_; ++d) base[d] = static_cast<T>(k[d]);
    for (int64_t d = 0; d < size_; ++d) values[d] = static_cast<T>(v[d]);
  }

  // This head's entries; the CPU keeps them in f32.
  float* ring(const AnyView<4>& entries) const {
    CHECK(entries.dtype == DType::f32, name_of(entries.dtype));
    return static_cast<float*>(entries.data) + layer_ * entries.stride[0] + row_ * entries.stride[1] + head_ * entries.stride[2];
  }

  // Sums over the ring from its oldest entry to its newest: no drift, and the same bits however the prompt was cut.
  void add_windowed(const float* k, const float* v, float weight, int32_t segment, SlotEntry mean) {
    const int window = dmc_.window;
    float* ring_k = ring(cache_.ring_k);
    float* ring_v = ring(cache_.ring_v);
    float* ring_w = &cache_.ring_w(layer_, row_, head_, 0);
    const int newest = segment % window;
    std::copy_n(k, size_, ring_k + newest * size_);
    std::copy_n(v, size_, ring_v + newest * size_);
    ring_w[newest] = weight;
    const int count = std::min(segment + 1, window);
    if (count == 1) {
      std::copy_n(k, size_, mean.k);
      std::copy_n(v, size_, mean.v);
      return;
    }
    float total = 0.0f;
    std::fill_n(mean.k, size_, 0.0f);
    std::fill_n(mean.v, size_, 0.0f);
    for (int age = count - 1; age >= 0; --age) {
      const int entry = (newest - age + window) % window;
      total += ring_w[entry];
      add_scaled(mean, ring_w[entry], ring_k + entry * size_, ring_v + entry * size_);
    }
    scale(mean, 1.0f / total);
  }

  void add_running(const float* k, const float* v, float weight, int32_t segment, SlotEntry mean) {
    const SlotEntry sum{ring(cache_.ring_k), ring(cache_.ring_v)};
    float& total = cache_.ring_w(layer_, row_, head_, 0);
    if (segment == 0) {
      std::fill_n(sum.k, size_, 0.0f);
      std::fill_n(sum.v, size_, 0.0f);
      total = 0.0f;
    }
    add_scaled(sum, weight, k, v);
    total += weight;
    std::copy_n(sum.k, size_, mean.k);
    std::copy_n(sum.v, size_, mean.v);
    scale(mean, 1.0f / total);
  }

  void add_scaled(SlotEntry to, float factor, const float* k, const float* v) const {
    for (int64_t d = 0; d < size_; ++d) to.k[d] += factor * k[d];
    for (int64_t d = 0; d < size_; ++d) to.v[d] += factor * v[d];
  }
  void scale(SlotEntry entry, float factor) const {
    for (int64_t d = 0; d < size_; ++d) entry.k[d] *= factor;
    for (int64_t d = 0; d < size_; ++d) entry.v[d] *= factor;
  }

  const CacheRef& cache_;
  const DmcParams& dmc_;
  int layer_, row_, head_;
  int32_t slots_;
  int64_t size_;  // D
};

}  // namespace accrete
