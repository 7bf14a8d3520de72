// Compressed caches for measurements: any lengths per head, pages scattered over a large pool, contents random. In builds with CUDA.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/paging/cache_ref.h"
#include "launch/bench/kernels/device_array.h"

namespace accrete::launch {

inline constexpr int32_t kBenchPageSlots = 16;  // S
inline constexpr int64_t kBenchHeadSize = 128;  // D

// A pool of pages of random keys and values, and the order in which caches take them: a random one. Caches of one time share the pages,
// for nobody looks at what they say.
class RandomPages {
 public:
  RandomPages(int64_t pages, Stream& stream);
  int64_t count() const { return static_cast<int64_t>(order_.size()); }
  AnyView<4> view() const;  // [N, 2, S, D] bf16
  std::span<const int32_t> order() const { return order_; }

 private:
  DeviceArray<bf16> values_;
  std::vector<int32_t> order_;
};

struct CacheLengths {
  int64_t layers = 0;            // L
  int64_t rows = 0;              // B
  int64_t kv_heads = 0;          // Hkv
  std::vector<int32_t> slots = {};    // [L, B, Hkv]
  std::vector<int32_t> segment = {};  // the same; empty: one token in every open segment
  int64_t spare_slots = 0;       // room in the tables for as many more of every head
  int32_t window = 0;            // W of the DMC state; 0: none is kept

  int64_t heads() const { return layers * rows * kv_heads; }
  int64_t max_pages() const;
  int64_t total_slots() const;
};

// Owns everything a CacheRef points to but the pages. Waits for the stream when made.
class RandomCache {
 public:
  RandomCache(const CacheLengths& lengths, RandomPages& pages, Stream& stream);

  CacheRef ref() const;
  uint64_t* give_ticket() const;
  // Enqueued: counts, tables and free list as they were when the cache was made.
  void reset(Stream& stream);
  // Throws when a launch ran out of pages: it then did less than it should. Waits.
  void check_enough_pages(Stream& stream) const;

 private:
  void fill_tables(std::span<const int32_t> order, Stream& stream);
  void fill_state(Stream& stream);

  CacheLengths lengths_;
  AnyView<4> pages_;
  DeviceArray<int32_t> slots_, segment_;       // [L, B, Hkv]
  DeviceArray<int32_t> page_rows_;             // [L, B, Hkv, max_pages]
  DeviceArray<bf16> ring_k_, ring_v_;          // [L, B, Hkv, W, D]
  DeviceArray<float> ring_w_;                  // [L, B, Hkv, W]
  DeviceArray<int32_t> free_ring_;             // [N]
  DeviceArray<PoolTickets> tickets_;           // [1]
  // As made.
  DeviceArray<int32_t> first_slots_, first_segment_, first_page_rows_;
  DeviceArray<PoolTickets> first_tickets_;
};

}  // namespace accrete::launch
