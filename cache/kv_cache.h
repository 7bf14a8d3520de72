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

#include "cache/snapshot.h"
#include "kernels/paging/cache_ref.h"

namespace accrete::cache {

struct KvCacheShape {
  int64_t layers = 0;      // L_local
  int64_t kv_heads = 0;    // Hkv_local
  int64_t head_size = 0;   // D
  int64_t sequences = 0;   // B: rows of the tables
  int64_t max_tokens = 0;  // longest sequence: max_pages = ceil(max_tokens / page_slots)
  int64_t pages = 0;       // N
  int32_t page_slots = 16; // S
  int32_t window = 12;     // W of the DMC state
  bool dmc = false;        // false: no ring or sums are kept
  DType dtype = DType::f32;

  int64_t page_bytes() const { return 2 * page_slots * head_size * static_cast<int64_t>(size_of(dtype)); }
  int64_t heads() const { return layers * kv_heads; }
  int64_t state_bytes() const;  // tables and DMC state, all rows: what the memory plan must add to pages * page_bytes()
};

// One row's use of this rank's memory, as of the last finished step.
struct RowUse {
  int64_t pages = 0;       // held
  int64_t slots = 0;       // sum over layers and KV heads
  int32_t full_heads = 0;  // heads whose next append takes a page (no page yet, or the last one full)
};

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
  // nothing when free pages do not suffice, and throws SnapshotError when the bytes are damaged or of another shape.
  std::vector<std::byte> export_row(int32_t row) const;
  bool import_row(int32_t row, std::span<const std::byte> snapshot);
  static int64_t snapshot_pages(std::span<const std::byte> snapshot);

  // Walks every table: each page is owned once or free, counts agree. Returns what is wrong, or nothing. For tests and asserts.
  std::optional<std::string> audit() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accrete::cache
