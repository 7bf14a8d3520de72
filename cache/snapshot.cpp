#include "cache/snapshot.h"

#include <fmt/format.h>

#include <cstring>

#include "cache/crc32c.h"
#include "cache/kv_cache.h"

namespace accrete::cache {
namespace {

constexpr char kMagic[8] = {'A', 'C', 'C', 'R', 'E', 'T', 'K', 'V'};

void expect(const char* field, int64_t found, int64_t wanted) {
  if (found != wanted) throw SnapshotError(fmt::format("cache snapshot: {} is {}, this cache has {}", field, found, wanted));
}

}  // namespace

SnapshotHeader make_header(const KvCacheShape& shape, int64_t pages) {
  SnapshotHeader header{};
  std::memcpy(header.magic, kMagic, sizeof(kMagic));
  header.version = kSnapshotVersion;
  header.layers = shape.layers;
  header.kv_heads = shape.kv_heads;
  header.head_size = shape.head_size;
  header.pages = pages;
  header.page_slots = shape.page_slots;
  header.window = shape.window;
  header.dmc = shape.dmc ? 1 : 0;
  header.dtype = static_cast<int32_t>(shape.dtype);
  return header;
}

void seal(std::vector<std::byte>& snapshot) {
  SnapshotHeader header;
  std::memcpy(&header, snapshot.data(), sizeof(header));
  header.bytes = static_cast<int64_t>(snapshot.size());
  header.crc = crc32c(std::span<const std::byte>(snapshot).subspan(sizeof(header)));
  std::memcpy(snapshot.data(), &header, sizeof(header));
}

SnapshotHeader open_snapshot(std::span<const std::byte> snapshot, const KvCacheShape& shape) {
  SnapshotHeader header;
  if (snapshot.size() < sizeof(header)) throw SnapshotError(fmt::format("cache snapshot: {} bytes are less than its header", snapshot.size()));
  std::memcpy(&header, snapshot.data(), sizeof(header));
  if (std::memcmp(header.magic, kMagic, sizeof(kMagic)) != 0) throw SnapshotError("cache snapshot: the magic number is wrong");
  expect("version", header.version, kSnapshotVersion);
  if (header.bytes != static_cast<int64_t>(snapshot.size())) {
    throw SnapshotError(fmt::format("cache snapshot: {} bytes of {} are there", snapshot.size(), header.bytes));
  }
  expect("layers", header.layers, shape.layers);
  expect("kv_heads", header.kv_heads, shape.kv_heads);
  expect("head_size", header.head_size, shape.head_size);
  expect("page_slots", header.page_slots, shape.page_slots);
  expect("window", header.window, shape.window);
  expect("dmc", header.dmc, shape.dmc ? 1 : 0);
  expect("dtype", header.dtype, static_cast<int32_t>(shape.dtype));
  if (header.crc != crc32c(snapshot.subspan(sizeof(header)))) throw SnapshotError("cache snapshot: the checksum does not fit its bytes");
  return header;
}

void SnapshotReader::read(void* to, size_t bytes) {
  if (bytes > rest_.size()) throw SnapshotError("cache snapshot: it ends early");
  std::memcpy(to, rest_.data(), bytes);
  rest_ = rest_.subspan(bytes);
}

}  // namespace accrete::cache
