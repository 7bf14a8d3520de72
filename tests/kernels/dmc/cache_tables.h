// The tables behind a CacheRef, for tests that stand on kernels alone (the real owner is cache::KvCache).
#pragma once

#include <numeric>
#include <vector>

#include "kernels/dmc/dmc_update.h"

namespace accrete {

struct CacheTables {
  struct Shape {
    int64_t layers = 1, rows = 1, kv_heads = 1, head_size = 64, max_pages = 16, pages = 64;
    int32_t page_slots = 16;
    int window = 12;
    DType dtype = DType::f32;
  };

  explicit CacheTables(const Shape& s)
      : shape(s),
        f32(s.dtype == DType::f32 ? page_elements() : 0),
        narrow(s.dtype == DType::bf16 ? page_elements() : 0),
        slots(heads()),
        segment(heads()),
        page_rows(heads() * s.max_pages, kNoPage),
        ring_k(heads() * entries() * s.head_size),
        ring_v(heads() * entries() * s.head_size),
        ring_w(heads() * entries()),
        free_ring(s.pages),
        give(s.pages) {
    std::iota(free_ring.begin(), free_ring.end(), 0);
  }

  CacheRef ref() {
    const std::array<int64_t, 4> page_dims{shape.pages, 2, shape.page_slots, shape.head_size};
    const int64_t L = shape.layers, B = shape.rows, H = shape.kv_heads;
    CacheRef ref;
    ref.pages = shape.dtype == DType::bf16 ? AnyView<4>(View<bf16, 4>(narrow.data(), page_dims)) : AnyView<4>(View<float, 4>(f32.data(), page_dims));
    ref.slots = View<int32_t, 3>(slots.data(), {L, B, H});
    ref.segment = View<int32_t, 3>(segment.data(), {L, B, H});
    ref.page_rows = View<int32_t, 4>(page_rows.data(), {L, B, H, shape.max_pages});
    ref.ring_k = View<float, 4>(ring_k.data(), {L, B, H, entries() * shape.head_size});
    ref.ring_v = View<float, 4>(ring_v.data(), {L, B, H, entries() * shape.head_size});
    ref.ring_w = View<float, 4>(ring_w.data(), {L, B, H, entries()});
    ref.pool = {free_ring.data(), &take, &give, &exhausted, static_cast<int32_t>(shape.pages)};
    ref.page_slots = shape.page_slots;
    return ref;
  }

  int64_t heads() const { return shape.layers * shape.rows * shape.kv_heads; }
  int64_t entries() const { return shape.window > 0 ? shape.window : 1; }
  int64_t page_elements() const { return shape.pages * 2 * shape.page_slots * shape.head_size; }

  Shape shape;
  std::vector<float> f32;
  std::vector<bf16> narrow;
  std::vector<int32_t> slots, segment, page_rows;
  std::vector<float> ring_k, ring_v, ring_w;
  std::vector<int32_t> free_ring;
  uint64_t take = 0, give = 0;
  int32_t exhausted = 0;
};

}  // namespace accrete
