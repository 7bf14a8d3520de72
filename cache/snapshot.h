// The form of an exported row (KvCache::export_row): a header, then each head's counts, slots and DMC state, layer-major. It holds no page
// ids, so it can be imported anywhere a cache has the same shape, on a GPU or not. Little endian; version 1.
//
//   Header | head 0 | head 1 | ...
//   head:  int32 slots, int32 segment, K [slots, D], V [slots, D] in the cache's type,
//          with DMC: ring_k, ring_v [max(W,1) * D], ring_w [max(W,1)] as f32
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <stdexcept>
#include <vector>

#include "kernels/paging/row_image.h"

namespace accrete::cache {

struct KvCacheShape;

// Damaged bytes, another version or another shape; the message says which field.
struct SnapshotError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct SnapshotHeader {
  char magic[8];  // "ACCRETKV"
  uint32_t version;
  uint32_t crc;   // CRC-32C of all bytes after the header
  int64_t bytes;  // of the whole snapshot
  int64_t layers, kv_heads, head_size, pages;  // pages: what an import takes
  int32_t page_slots, window, dmc, dtype;
};
static_assert(sizeof(SnapshotHeader) == 72);

inline constexpr uint32_t kSnapshotVersion = 1;

SnapshotHeader make_header(const KvCacheShape& shape, int64_t pages);
// Fills in bytes and crc of a finished snapshot.
void seal(std::vector<std::byte>& snapshot);
// Throws SnapshotError unless the snapshot is whole, undamaged and of this shape.
SnapshotHeader open_snapshot(std::span<const std::byte> snapshot, const KvCacheShape& shape);

// The pages that an import of it takes, as its header says; throws SnapshotError when there is no header.
int64_t snapshot_pages(std::span<const std::byte> snapshot);

// Where each head of a row with these counts lies, [L * Hkv + 1].
std::vector<RowHead> row_heads(const KvCacheShape& shape, std::span<const int32_t> slots, std::span<const int32_t> segment);
// The same of an opened snapshot, which then is known to hold what it says; throws SnapshotError.
std::vector<RowHead> read_row_heads(std::span<const std::byte> snapshot, const KvCacheShape& shape);
// Bytes of a snapshot of such a row.
inline size_t snapshot_bytes(const std::vector<RowHead>& heads) {
  return sizeof(SnapshotHeader) + static_cast<size_t>(heads.back().word_begin) * sizeof(uint32_t);
}

}  // namespace accrete::cache
