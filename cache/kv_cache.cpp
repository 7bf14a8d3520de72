#include "cache/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "cache/arena.h"
#include "cache/page_pool.h"
#include "kernels/check.h"

namespace accrete::cache {
namespace {

int64_t max_pages(const KvCacheShape& shape) { return (shape.max_tokens + shape.page_slots - 1) / shape.page_slots; }
int64_t ring_entries(const KvCacheShape& shape) { return shape.dmc ? std::max(shape.window, 1) : 0; }
int64_t table_heads(const KvCacheShape& shape) { return shape.heads() * shape.sequences; }
size_t ring_weight_bytes(const KvCacheShape& shape) { return table_heads(shape) * ring_entries(shape) * sizeof(float); }
size_t ring_vector_bytes(const KvCacheShape& shape) { return ring_weight_bytes(shape) * shape.head_size; }

// Of a row's snapshot with `slots` slots in all.
size_t snapshot_bytes(const KvCacheShape& shape, int64_t slots) {
  const int64_t ring = ring_entries(shape) * (2 * shape.head_size + 1) * static_cast<int64_t>(sizeof(float));
  return sizeof(SnapshotHeader) + shape.heads() * (ring + 2 * sizeof(int32_t)) + slots * 2 * shape.head_size * size_of(shape.dtype);
}

}  // namespace

int64_t KvCacheShape::state_bytes() const {
  const int64_t ring = ring_entries(*this) * (2 * head_size + 1) * static_cast<int64_t>(sizeof(float));
  const int64_t counts = static_cast<int64_t>(sizeof(int32_t)) * (1 + (dmc ? 1 : 0) + max_pages(*this));
  return table_heads(*this) * (ring + counts) + pages * static_cast<int64_t>(sizeof(int32_t));
}

struct KvCache::State {
  explicit State(const KvCacheShape& s)
      : shape(s),
        pool(static_cast<int32_t>(s.pages)),
        arena(static_cast<size_t>(s.pages * s.page_bytes())),
        slots(table_heads(s)),
        segment(s.dmc ? table_heads(s) : 0),
        page_rows(table_heads(s) * max_pages(s), kNoPage),
        ring_k_bytes(ring_vector_bytes(s)),
        ring_v_bytes(ring_vector_bytes(s)),
        ring_w_bytes(ring_weight_bytes(s)),
        ring_k(static_cast<float*>(ring_k_bytes.data())),
        ring_v(static_cast<float*>(ring_v_bytes.data())),
        ring_w(static_cast<float*>(ring_w_bytes.data())) {}

  AnyView<4> pages() {
    const std::array<int64_t, 4> dims{shape.pages, 2, shape.page_slots, shape.head_size};
    if (shape.dtype == DType::bf16) return View<bf16, 4>(static_cast<bf16*>(arena.data()), dims);
    return View<float, 4>(static_cast<float*>(arena.data()), dims);
  }
  // Index of (layer, row, head) in the tables, [L, B, Hkv].
  int64_t at(int64_t layer, int64_t row, int64_t head) const { return (layer * shape.sequences + row) * shape.kv_heads + head; }
  int32_t* row_pages(int64_t index) { return page_rows.data() + index * max_pages(shape); }
  int64_t pages_of(int64_t index) const { return (slots[index] + shape.page_slots - 1) / shape.page_slots; }

  template <class Body>
  void each_head(int32_t row, Body&& body) const {
    CHECK(row >= 0 && row < shape.sequences, row, shape.sequences);
    for (int64_t layer = 0; layer < shape.layers; ++layer) {
      for (int64_t head = 0; head < shape.kv_heads; ++head) body(at(layer, row, head));
    }
  }

  void export_head(int64_t index, std::vector<std::byte>& out);
  void import_head(int64_t index, SnapshotReader& in);
  size_t slot_bytes() const { return shape.head_size * size_of(shape.dtype); }

  // The keys, then the values of a head, page by page: body(begin, bytes).
  template <class Body>
  void each_run(int64_t index, Body&& body) {
    for (int64_t which = 0; which < 2; ++which) {
      for (int64_t first = 0; first < slots[index]; first += shape.page_slots) {
        const int64_t page = row_pages(index)[first / shape.page_slots];
        const int64_t count = std::min<int64_t>(shape.page_slots, slots[index] - first);
        body(static_cast<std::byte*>(arena.data()) + (page * 2 + which) * shape.page_slots * slot_bytes(), count * slot_bytes());
      }
    }
  }
  // A head's DMC state: body(begin, bytes).
  template <class Body>
  void each_ring(int64_t index, Body&& body) {
    const int64_t entries = ring_entries(shape), vectors = entries * shape.head_size;
    body(ring_k + index * vectors, vectors * sizeof(float));
    body(ring_v + index * vectors, vectors * sizeof(float));
    body(ring_w + index * entries, entries * sizeof(float));
  }

  KvCacheShape shape;
  PagePool pool;
  Arena arena;
  std::vector<int32_t> slots;      // [L, B, Hkv]
  std::vector<int32_t> segment;    // [L, B, Hkv]
  std::vector<int32_t> page_rows;  // [L, B, Hkv, max_pages]
  Arena ring_k_bytes, ring_v_bytes, ring_w_bytes;  // touched by the rows that are used
  float* ring_k;                                   // [L, B, Hkv, max(W, 1), D]
  float* ring_v;                                   // the same
  float* ring_w;                                   // [L, B, Hkv, max(W, 1)]
};

KvCache::KvCache(const KvCacheShape& shape) {
  CHECK(shape.layers > 0 && shape.kv_heads > 0 && shape.head_size > 0, shape.layers, shape.kv_heads, shape.head_size);
  CHECK(shape.sequences > 0 && shape.max_tokens > 0 && shape.page_slots > 0, shape.sequences, shape.max_tokens, shape.page_slots);
  CHECK(shape.pages > 0 && shape.pages < (int64_t{1} << 31), shape.pages);
  CHECK(shape.dtype == DType::f32 || shape.dtype == DType::bf16, name_of(shape.dtype));
  state_ = std::make_unique<State>(shape);
}

KvCache::~KvCache() = default;

const KvCacheShape& KvCache::shape() const { return state_->shape; }

CacheRef KvCache::ref() {
  State& s = *state_;
  const int64_t layers = s.shape.layers, rows = s.shape.sequences, heads = s.shape.kv_heads, entries = ring_entries(s.shape);
  CacheRef ref;
  ref.pages = s.pages();
  ref.slots = View<int32_t, 3>(s.slots.data(), {layers, rows, heads});
  ref.page_rows = View<int32_t, 4>(s.page_rows.data(), {layers, rows, heads, max_pages(s.shape)});
  if (s.shape.dmc) {
    ref.ring_k = View<float, 4>(s.ring_k, {layers, rows, heads, entries * s.shape.head_size});
    ref.ring_v = View<float, 4>(s.ring_v, {layers, rows, heads, entries * s.shape.head_size});
    ref.ring_w = View<float, 4>(s.ring_w, {layers, rows, heads, entries});
    ref.segment = View<int32_t, 3>(s.segment.data(), {layers, rows, heads});
  }
  ref.pool = s.pool.ref();
  ref.page_slots = s.shape.page_slots;
  return ref;
}

void KvCache::release(int32_t row) {
  State& s = *state_;
  s.each_head(row, [&](int64_t index) {
    const int64_t pages = s.pages_of(index);
    for (int64_t i = 0; i < pages; ++i) {
      s.pool.give(s.row_pages(index)[i]);
      s.row_pages(index)[i] = kNoPage;
    }
    s.slots[index] = 0;
    if (s.shape.dmc) s.segment[index] = 0;
  });
}

bool KvCache::take_exhausted() { return state_->pool.take_exhausted(); }
int64_t KvCache::free_pages() const { return state_->pool.free_pages(); }
int64_t KvCache::bytes_in_use() const { return (state_->shape.pages - free_pages()) * state_->shape.page_bytes(); }

RowUse KvCache::use(int32_t row) const {
  RowUse use;
  state_->each_head(row, [&](int64_t index) {
    use.pages += state_->pages_of(index);
    use.slots += state_->slots[index];
    use.full_heads += state_->slots[index] % state_->shape.page_slots == 0 ? 1 : 0;
  });
  return use;
}

std::vector<int32_t> KvCache::slot_counts(int32_t row) const {
  std::vector<int32_t> counts;
  counts.reserve(state_->shape.heads());
  state_->each_head(row, [&](int64_t index) { counts.push_back(state_->slots[index]); });
  return counts;
}

namespace {

void put(std::vector<std::byte>& out, const void* from, size_t bytes) {
  const auto* begin = static_cast<const std::byte*>(from);
  out.insert(out.end(), begin, begin + bytes);
}

void expect_pages(int64_t said, int64_t needed) {
  if (said != needed) throw SnapshotError(fmt::format("cache snapshot: pages is {}, its slots need {}", said, needed));
}

}  // namespace

void KvCache::State::export_head(int64_t index, std::vector<std::byte>& out) {
  put(out, &slots[index], sizeof(int32_t));
  const int32_t open = shape.dmc ? segment[index] : 0;
  put(out, &open, sizeof(open));
  each_run(index, [&](std::byte* run, size_t bytes) { put(out, run, bytes); });
  if (!shape.dmc) return;
  each_ring(index, [&](float* ring, size_t bytes) { put(out, ring, bytes); });
}

// Checks before it takes, so that a head either has all its pages or none.
void KvCache::State::import_head(int64_t index, SnapshotReader& in) {
  int32_t count = 0, open = 0;
  in.read(&count, sizeof(count));
  in.read(&open, sizeof(open));
  if (count < 0 || count > shape.max_tokens) throw SnapshotError(fmt::format("cache snapshot: a head's slots is {}", count));
  if (open < 0 || open > shape.max_tokens) throw SnapshotError(fmt::format("cache snapshot: a head's segment is {}", open));
  if (in.left() < 2 * count * slot_bytes()) throw SnapshotError("cache snapshot: it ends early");
  const int64_t pages = (count + shape.page_slots - 1) / shape.page_slots;
  if (pages > pool.free_pages()) throw SnapshotError("cache snapshot: it holds more slots than its header says");
  for (int64_t i = 0; i < pages; ++i) row_pages(index)[i] = pool.take();
  slots[index] = count;
  if (shape.dmc) segment[index] = open;
  each_run(index, [&](std::byte* run, size_t bytes) { in.read(run, bytes); });
  if (!shape.dmc) return;
  each_ring(index, [&](float* ring, size_t bytes) { in.read(ring, bytes); });
}

std::vector<std::byte> KvCache::export_row(int32_t row) const {
  const SnapshotHeader header = make_header(state_->shape, use(row).pages);
  std::vector<std::byte> out;
  out.reserve(snapshot_bytes(state_->shape, use(row).slots));
  put(out, &header, sizeof(header));
  state_->each_head(row, [&](int64_t index) { state_->export_head(index, out); });
  seal(out);
  return out;
}

bool KvCache::import_row(int32_t row, std::span<const std::byte> snapshot) {
  const SnapshotHeader header = open_snapshot(snapshot, state_->shape);
  CHECK(use(row).slots == 0, row, use(row).slots);
  if (snapshot_pages(snapshot) > free_pages()) return false;
  SnapshotReader in(snapshot.subspan(sizeof(header)));
  try {
    state_->each_head(row, [&](int64_t index) { state_->import_head(index, in); });
    if (in.left() != 0) throw SnapshotError(fmt::format("cache snapshot: {} bytes too many", in.left()));
    expect_pages(header.pages, use(row).pages);
  } catch (const SnapshotError&) {
    release(row);
    throw;
  }
  return true;
}

int64_t KvCache::snapshot_pages(std::span<const std::byte> snapshot) {
  SnapshotHeader header;
  if (snapshot.size() < sizeof(header)) throw SnapshotError("cache snapshot: it is shorter than its header");
  std::memcpy(&header, snapshot.data(), sizeof(header));
  if (header.pages < 0) throw SnapshotError(fmt::format("cache snapshot: pages is {}", header.pages));
  return header.pages;
}

std::optional<std::string> KvCache::audit() const {
  State& s = *state_;
  std::vector<int32_t> owners(s.shape.pages, 0);
  for (int32_t page : s.pool.free_list()) ++owners[page];
  for (int64_t index = 0; index < table_heads(s.shape); ++index) {
    const int64_t pages = s.pages_of(index);
    if (s.slots[index] < 0 || s.slots[index] > s.shape.max_tokens) return fmt::format("head {}: {} slots", index, s.slots[index]);
    if (s.shape.dmc && s.segment[index] < 0) return fmt::format("head {}: segment {}", index, s.segment[index]);
    for (int64_t i = 0; i < max_pages(s.shape); ++i) {
      const int32_t page = s.row_pages(index)[i];
      if (i >= pages && page != kNoPage) return fmt::format("head {}: entry {} beyond its {} pages is {}", index, i, pages, page);
      if (i < pages && (page < 0 || page >= s.shape.pages)) return fmt::format("head {}: entry {} is {}", index, i, page);
      if (i < pages) ++owners[page];
    }
  }
  for (int64_t page = 0; page < s.shape.pages; ++page) {
    if (owners[page] != 1) return fmt::format("page {} has {} owners", page, owners[page]);
  }
  return std::nullopt;
}

}  // namespace accrete::cache
