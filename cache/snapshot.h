// The form of an exported row (KvCache::export_row): a header, then each head's counts, slots and DMC state, layer-major. It holds no page
// ids, so it can be imported anywhere a cache has the same shape. Little endian; version 1.
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

// Takes values off the front of a snapshot; throws SnapshotError past its end.
class SnapshotReader {
 public:
  explicit SnapshotReader(std::span<const std::byte> bytes) : rest_(bytes) {}
  void read(void* to, size_t bytes);
  size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
};

}  // namespace accrete::cache
