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

int64_t snapshot_pages(std::span<const std::byte> snapshot) {
  SnapshotHeader header;
  if (snapshot.size() < sizeof(header)) throw SnapshotError("cache snapshot: it is shorter than its header");
  std::memcpy(&header, snapshot.data(), sizeof(header));
  if (header.pages < 0) throw SnapshotError(fmt::format("cache snapshot: pages is {}", header.pages));
  return header.pages;
}

namespace {

constexpr int64_t kCountWords = 2;  // slots, segment

// The head after `head`, which has its counts.
RowHead next_head(const KvCacheShape& shape, const RowHead& head) {
  const int64_t ring = shape.ring_entries() * (2 * shape.head_size + 1);
  const int64_t vectors = 2 * head.slots * shape.head_size * static_cast<int64_t>(size_of(shape.dtype)) / static_cast<int64_t>(sizeof(uint32_t));
  return {head.word_begin + kCountWords + vectors + ring, head.page_begin + (head.slots + shape.page_slots - 1) / shape.page_slots};
}

}  // namespace

std::vector<RowHead> row_heads(const KvCacheShape& shape, std::span<const int32_t> slots, std::span<const int32_t> segment) {
  std::vector<RowHead> heads(1);
  heads.reserve(slots.size() + 1);
  for (size_t i = 0; i < slots.size(); ++i) {
    heads[i].slots = slots[i];
    heads[i].segment = segment.empty() ? 0 : segment[i];
    heads.push_back(next_head(shape, heads[i]));
  }
  return heads;
}

std::vector<RowHead> read_row_heads(std::span<const std::byte> snapshot, const KvCacheShape& shape) {
  const std::span<const std::byte> image = snapshot.subspan(sizeof(SnapshotHeader));
  std::vector<RowHead> heads(1);
  heads.reserve(shape.heads() + 1);
  for (int64_t i = 0; i < shape.heads(); ++i) {
    const size_t at = static_cast<size_t>(heads[i].word_begin) * sizeof(uint32_t);
    if (at + kCountWords * sizeof(uint32_t) > image.size()) throw SnapshotError("cache snapshot: it ends early");
    std::memcpy(&heads[i].slots, image.data() + at, sizeof(int32_t));
    std::memcpy(&heads[i].segment, image.data() + at + sizeof(int32_t), sizeof(int32_t));
    const auto bad = [&](int32_t count) { return count < 0 || count > shape.max_tokens; };
    if (bad(heads[i].slots)) throw SnapshotError(fmt::format("cache snapshot: a head's slots is {}", heads[i].slots));
    if (bad(heads[i].segment)) throw SnapshotError(fmt::format("cache snapshot: a head's segment is {}", heads[i].segment));
    heads.push_back(next_head(shape, heads[i]));
  }
  const size_t bytes = static_cast<size_t>(heads.back().word_begin) * sizeof(uint32_t);
  if (bytes > image.size()) throw SnapshotError("cache snapshot: it ends early");
  if (bytes < image.size()) throw SnapshotError(fmt::format("cache snapshot: {} bytes too many", image.size() - bytes));
  if (snapshot_pages(snapshot) != heads.back().page_begin) {
    throw SnapshotError(fmt::format("cache snapshot: pages is {}, its slots need {}", snapshot_pages(snapshot), heads.back().page_begin));
  }
  return heads;
}

}  // namespace accrete::cache
