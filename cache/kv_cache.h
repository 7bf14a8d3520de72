// KvCache: one rank's KV memory. Owns the page arena, the page pool, the per-(sequence, layer, KV head) tables and the DMC state;
// hands ops a plain CacheRef. Owned by the step thread; never logs.
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
#include "kernels/paging/cache_ref.h"

namespace accrete::cache {

class KvCache {
 public:
  explicit KvCache(const KvCacheShape& shape);  // allocates everything; std::bad_alloc when it does not fit
  ~KvCache();
  KvCache(const KvCache&) = delete;
  KvCache& operator=(const KvCache&) = delete;

  const KvCacheShape& shape() const;
  CacheRef ref();

  // Between steps only. Gives the row's pages back and zeroes its tables. Releasing an empty row is allowed.
  void release(int32_t row);
  // True once after a step in which the pool ran dry. The step's rows are void: the caller releases and recomputes them.
  bool take_exhausted();

  int64_t free_pages() const;
  RowUse use(int32_t row) const;
  // Slot counts of a row, [L_local * Hkv_local], layer-major.
  std::vector<int32_t> slot_counts(int32_t row) const;
  int64_t bytes_in_use() const;  // pages held * page_bytes: equals what the arena's tables reach, to the byte

  // Snapshot of a row: versioned, checksummed, independent of page ids. import_row needs an empty row; it returns false and changes
  // nothing when free pages do not suffice, and throws SnapshotError when the bytes are damaged or of another shape. What it takes: snapshot_pages (cache/snapshot.h).
  std::vector<std::byte> export_row(int32_t row) const;
  bool import_row(int32_t row, std::span<const std::byte> snapshot);

  // Walks every table: each page is owned once or free, counts agree. Returns what is wrong, or nothing. For tests and asserts.
  std::optional<std::string> audit() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accrete::cache
