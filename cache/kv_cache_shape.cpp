#include "cache/kv_cache_shape.h"

#include "kernels/check.h"
#include "kernels/paging/row_image.h"

namespace accrete::cache {
namespace {

// Beside tables and pages: pieces of rows on the move, the layout of one row, the pool's tickets and flag.
int64_t device_work_bytes(const KvCacheShape& shape) {
  return 2 * kMoveBytes + (shape.heads() + 1) * static_cast<int64_t>(sizeof(RowHead)) + static_cast<int64_t>(sizeof(PoolTickets));
}

}  // namespace

int64_t KvCacheShape::state_bytes() const {
  const int64_t counts = static_cast<int64_t>(sizeof(int32_t)) * (1 + (dmc ? 1 : 0) + max_pages());
  return table_heads() * (ring_bytes() + counts) + pages * static_cast<int64_t>(sizeof(int32_t)) + (device ? device_work_bytes(*this) : 0);
}

void check_shape(const KvCacheShape& shape) {
  CHECK(shape.layers > 0 && shape.kv_heads > 0 && shape.head_size > 0, shape.layers, shape.kv_heads, shape.head_size);
  CHECK(shape.sequences > 0 && shape.max_tokens > 0 && shape.page_slots > 0, shape.sequences, shape.max_tokens, shape.page_slots);
  CHECK(shape.pages > 0 && shape.pages < (int64_t{1} << 31), shape.pages);
  CHECK(shape.dtype == DType::f32 || shape.dtype == DType::bf16, name_of(shape.dtype));
}

}  // namespace accrete::cache
