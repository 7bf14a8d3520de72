// DeviceKvCache: KvCache's counterpart in a GPU's memory. Owns arena, tables, DMC state and page pool there, and hands CUDA ops a CacheRef
// whose pointers are the device's. Owned by the step thread; never logs.
//
// Everything is enqueued on the one stream given at construction, which the step's ops run on too: its order is what separates the steps
// from the calls between them. Calls that return host values wait for the stream; the others return at once.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/kv_cache_shape.h"
#include "cache/snapshot.h"
#include "kernels/device/device_memory.h"
#include "kernels/paging/cache_ref.h"
#include "kernels/stream.h"

namespace accrete::cache {

// What rows use and the pool's state as of a point in the stream, in pinned memory: to be read when the stream has passed that point.
class UseReport {
 public:
  explicit UseReport(int64_t rows);

  int64_t rows() const { return rows_; }  // at most so many
  RowUse row(int64_t i) const;
  int64_t free_pages() const;
  bool exhausted() const;  // a take has failed since the report before

  View<int64_t, 2> uses();  // [rows, 4], for row_use_cuda
  View<int64_t, 1> pool();  // [2]

 private:
  int64_t rows_;
  PinnedMemory memory_;
};

class DeviceKvCache {
 public:
  // shape.device must be set. Allocates everything on the current device (CudaError when it does not fit) and fills the tables. Rows move to
  // and from the host in pieces of move_bytes, a multiple of 4 and at most kMoveBytes.
  DeviceKvCache(const KvCacheShape& shape, const Stream& stream, int64_t move_bytes = kMoveBytes);
  ~DeviceKvCache();
  DeviceKvCache(const DeviceKvCache&) = delete;
  DeviceKvCache& operator=(const DeviceKvCache&) = delete;

  const KvCacheShape& shape() const;
  CacheRef ref();

  // Enqueued, between steps. Give the rows' pages back and empty their tables; rows distinct, empty ones allowed.
  void release(std::span<const int32_t> rows);
  void release(int32_t row) { release(std::span(&row, 1)); }

  // Enqueued, and may be captured in a graph: reports on rows, a list in device memory in which negative ones are skipped.
  void use(View<const int32_t, 1> rows, UseReport& report);
  // The same into memory of the caller's, on the device or pinned: RowUseQuery's uses and pool.
  void use(View<const int32_t, 1> rows, View<int64_t, 2> uses, View<int64_t, 1> pool);
  // Enqueued: slot counts of rows into counts [rows, L_local * Hkv_local], on the device or pinned.
  void count_slots(std::span<const int32_t> rows, View<int32_t, 2> counts);

  // These wait for the stream.
  RowUse use(int32_t row);
  int64_t free_pages();
  int64_t bytes_in_use();
  bool take_exhausted();  // true once after a take failed that no report has told
  // Slot counts, [rows, L_local * Hkv_local], layer-major.
  std::vector<int32_t> slot_counts(std::span<const int32_t> rows);
  std::vector<int32_t> slot_counts(int32_t row) { return slot_counts(std::span(&row, 1)); }

  // Snapshots, interchangeable with KvCache's of the same shape; a ring entry rounds to bf16 on import where the ring is bf16. import_row
  // needs an empty row; it returns false and changes nothing when free pages do not suffice, and throws SnapshotError when the bytes are
  // damaged or of another shape. They wait for the stream.
  std::vector<std::byte> export_row(int32_t row);
  bool import_row(int32_t row, std::span<const std::byte> snapshot);

  // Copies all tables and walks them (cache/audit.h). For tests.
  std::optional<std::string> audit();
  // Taken from the device: pages * page_bytes + shape.state_bytes().
  int64_t device_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accrete::cache
