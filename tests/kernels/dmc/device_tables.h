// CacheTables in device memory: the same tables copied there, pages and ring in bf16, for tests of CUDA ops.
#pragma once

#if defined(ACCRETE_CUDA)

#include "tests/kernels/dmc/cache_tables.h"
#include "tests/kernels/op_devices.h"

namespace accrete {

class DeviceTables {
 public:
  explicit DeviceTables(const CacheTables& host)
      : shape_(host.shape),
        pages_(std::vector<bf16>(host.page_elements(), bf16(std::numeric_limits<float>::quiet_NaN()))),  // nobody may read what nobody wrote
        slots_(host.slots),
        segment_(host.segment),
        page_rows_(host.page_rows),
        ring_k_(std::vector<bf16>(host.ring_k.size())),
        ring_v_(std::vector<bf16>(host.ring_v.size())),
        sum_k_(host.ring_k),
        sum_v_(host.ring_v),
        ring_w_(host.ring_w),
        free_ring_(host.free_ring),
        tickets_(std::vector<uint64_t>{host.take, host.give}),
        exhausted_(std::vector<int32_t>{0}) {}

  CacheRef ref() {
    const int64_t L = shape_.layers, B = shape_.rows, H = shape_.kv_heads, entries = shape_.window > 0 ? shape_.window : 1;
    const std::array<int64_t, 4> ring{L, B, H, entries * shape_.head_size};
    CacheRef ref;
    ref.pages = View<bf16, 4>(pages_.data(), {shape_.pages, 2, shape_.page_slots, shape_.head_size});
    ref.slots = View<int32_t, 3>(slots_.data(), {L, B, H});
    ref.segment = View<int32_t, 3>(segment_.data(), {L, B, H});
    ref.page_rows = View<int32_t, 4>(page_rows_.data(), {L, B, H, shape_.max_pages});
    if (shape_.window > 0) {
      ref.ring_k = View<bf16, 4>(ring_k_.data(), ring);
      ref.ring_v = View<bf16, 4>(ring_v_.data(), ring);
    } else {
      ref.ring_k = View<float, 4>(sum_k_.data(), ring);
      ref.ring_v = View<float, 4>(sum_v_.data(), ring);
    }
    ref.ring_w = View<float, 4>(ring_w_.data(), {L, B, H, entries});
    ref.pool = {free_ring_.data(), tickets_.data(), tickets_.data() + 1, exhausted_.data(), static_cast<int32_t>(shape_.pages)};
    ref.page_slots = shape_.page_slots;
    return ref;
  }

  std::vector<bf16> pages() { return pages_.read(); }
  std::vector<int32_t> slots() { return slots_.read(); }
  std::vector<int32_t> segment() { return segment_.read(); }
  std::vector<int32_t> page_rows() { return page_rows_.read(); }
  bool exhausted() { return exhausted_.read()[0] != 0; }
  uint64_t taken() { return tickets_.read()[0]; }

 private:
  template <class T>
  using Memory = CudaDevice::Memory<T>;
  CacheTables::Shape shape_;
  Memory<bf16> pages_;
  Memory<int32_t> slots_, segment_, page_rows_;
  Memory<bf16> ring_k_, ring_v_;
  Memory<float> sum_k_, sum_v_, ring_w_;
  Memory<int32_t> free_ring_;
  Memory<uint64_t> tickets_;
  Memory<int32_t> exhausted_;
};

}  // namespace accrete

#endif
