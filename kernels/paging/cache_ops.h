// The bookkeeping of a cache on a GPU, between steps and at their ends: rows given back, what rows use, rows into and out of images.
// The counterpart of what cache::KvCache does on the host; called by cache::DeviceKvCache. Everything is in device memory but what is said
// to be host memory. Ops enqueue and return.
//
// Pages are given back (release_rows_cuda) and taken for images (take_row_cuda) by kernels that no update runs beside: the order of the
// one stream is the lock of the free list's two ends.
#pragma once

#include <span>

#include "kernels/paging/cache_ref.h"
#include "kernels/paging/row_image.h"
#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

// The pool as a new cache has it: page i in entry i of the free list, all of them free.
void fill_pool_cuda(const PagePoolRef& pool, uint64_t* give_ticket, Stream& stream);

// Rows become empty: their pages go to the free list's end, slots and segments to 0, page rows to kNoPage.
struct ReleaseRows {
  CacheRef cache;
  uint64_t* give_ticket = nullptr;  // the one that cache.pool reads
  std::span<const int32_t> rows;    // host memory, read before the call returns; distinct
};
void release_rows_cuda(const ReleaseRows& op, Stream& stream);

// Slot counts of rows: counts(i, layer * Hkv + head).
struct CountSlots {
  CacheRef cache;
  std::span<const int32_t> rows;  // host memory, read before the call returns
  View<int32_t, 2> counts;        // [rows, L * Hkv] out; may be pinned host memory
};
void count_slots_cuda(const CountSlots& op, Stream& stream);

// What rows use, and the pool's state: one small kernel, which may be captured in a graph.
struct RowUseQuery {
  CacheRef cache;
  View<const int32_t, 1> rows;  // [R], negative: none, and its uses are 0
  View<int64_t, 2> uses;        // [R, 4] out: pages, slots, full heads (their next append takes a page), heads with one slot left; may be
                                // pinned host memory
  View<int64_t, 1> pool;        // [2] out: free pages; 1 if a take has failed since the last query. May be pinned host memory
};
void row_use_cuda(const RowUseQuery& op, Stream& stream);

// Pages and tables for a row that is empty, as `heads` says (kernels/paging/row_image.h). All or nothing: when the free pages do not
// suffice, the row stays empty and the pool is flagged exhausted.
struct TakeRow {
  CacheRef cache;
  int32_t row = 0;
  View<const RowHead, 1> heads;  // [L * Hkv + 1]
};
void take_row_cuda(const TakeRow& op, Stream& stream);

// Words [first, first + n) of a row's image.
struct RowWords {
  CacheRef cache;
  int32_t row = 0;
  View<const RowHead, 1> heads;  // [L * Hkv + 1], of the row as it stands
  int64_t first = 0;
  View<uint32_t, 1> words;       // [n]
};
void gather_row_cuda(const RowWords& op, Stream& stream);
// Into the pages that take_row_cuda took; slots and segments are left as it set them.
void scatter_row_cuda(const RowWords& op, Stream& stream);

}  // namespace accrete
