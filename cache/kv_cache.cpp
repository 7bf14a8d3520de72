#include "cache/kv_cache.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "cache/arena.h"
#include "cache/audit.h"
#include "cache/page_pool.h"
#include "kernels/check.h"

namespace accrete::cache {
namespace {

size_t ring_weight_bytes(const KvCacheShape& shape) { return shape.table_heads() * shape.ring_entries() * sizeof(float); }
size_t ring_vector_bytes(const KvCacheShape& shape) { return ring_weight_bytes(shape) * shape.head_size; }

}  // namespace

struct KvCache::State {
  explicit State(const KvCacheShape& s)
      : shape(s),
        pool(static_cast<int32_t>(s.pages)),
        arena(static_cast<size_t>(s.pages * s.page_bytes())),
        slots(s.table_heads()),
        segment(s.dmc ? s.table_heads() : 0),
        page_rows(s.table_heads() * s.max_pages(), kNoPage),
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
  int32_t* row_pages(int64_t index) { return page_rows.data() + index * shape.max_pages(); }
  int64_t pages_of(int64_t index) const { return (slots[index] + shape.page_slots - 1) / shape.page_slots; }

  template <class Body>
  void each_head(int32_t row, Body&& body) const {
    CHECK(row >= 0 && row < shape.sequences, row, shape.sequences);
    for (int64_t layer = 0; layer < shape.layers; ++layer) {
      for (int64_t head = 0; head < shape.kv_heads; ++head) body(at(layer, row, head));
    }
  }

  void export_head(int64_t index, std::vector<std::byte>& out);
  void import_head(int64_t index, const RowHead& head, const std::byte* from);
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
    const int64_t entries = shape.ring_entries(), vectors = entries * shape.head_size;
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
  check_shape(shape);
  CHECK(!shape.device);
  state_ = std::make_unique<State>(shape);
}

KvCache::~KvCache() = default;

const KvCacheShape& KvCache::shape() const { return state_->shape; }

CacheRef KvCache::ref() {
  State& s = *state_;
  const int64_t layers = s.shape.layers, rows = s.shape.sequences, heads = s.shape.kv_heads, entries = s.shape.ring_entries();
  CacheRef ref;
  ref.pages = s.pages();
  ref.slots = View<int32_t, 3>(s.slots.data(), {layers, rows, heads});
  ref.page_rows = View<int32_t, 4>(s.page_rows.data(), {layers, rows, heads, s.shape.max_pages()});
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
    use.add_head(state_->slots[index], state_->shape.page_slots);
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

}  // namespace

void KvCache::State::export_head(int64_t index, std::vector<std::byte>& out) {
  put(out, &slots[index], sizeof(int32_t));
  const int32_t open = shape.dmc ? segment[index] : 0;
  put(out, &open, sizeof(open));
  each_run(index, [&](std::byte* run, size_t bytes) { put(out, run, bytes); });
  if (!shape.dmc) return;
  each_ring(index, [&](float* ring, size_t bytes) { put(out, ring, bytes); });
}

void KvCache::State::import_head(int64_t index, const RowHead& head, const std::byte* from) {
  for (int64_t i = 0; i * shape.page_slots < head.slots; ++i) row_pages(index)[i] = pool.take();
  slots[index] = head.slots;
  if (shape.dmc) segment[index] = head.segment;
  from += 2 * sizeof(int32_t);
  const auto read = [&](void* to, size_t bytes) {
    std::memcpy(to, from, bytes);
    from += bytes;
  };
  each_run(index, read);
  if (shape.dmc) each_ring(index, read);
}

std::vector<std::byte> KvCache::export_row(int32_t row) const {
  const std::vector<RowHead> heads = row_heads(state_->shape, slot_counts(row), {});
  const SnapshotHeader header = make_header(state_->shape, heads.back().page_begin);
  std::vector<std::byte> out;
  out.reserve(snapshot_bytes(heads));
  put(out, &header, sizeof(header));
  state_->each_head(row, [&](int64_t index) { state_->export_head(index, out); });
  CHECK(out.size() == snapshot_bytes(heads), out.size(), snapshot_bytes(heads));
  seal(out);
  return out;
}

bool KvCache::import_row(int32_t row, std::span<const std::byte> snapshot) {
  open_snapshot(snapshot, state_->shape);
  CHECK(use(row).slots == 0, row, use(row).slots);
  const std::vector<RowHead> heads = read_row_heads(snapshot, state_->shape);
  if (heads.back().page_begin > free_pages()) return false;
  auto head = heads.begin();
  state_->each_head(row, [&](int64_t index) {
    state_->import_head(index, *head, snapshot.data() + sizeof(SnapshotHeader) + head->word_begin * sizeof(uint32_t));
    ++head;
  });
  return true;
}

std::optional<std::string> KvCache::audit() const {
  const std::vector<int32_t> free_list = state_->pool.free_list();
  return audit_tables(state_->shape, {state_->slots, state_->segment, state_->page_rows, free_list});
}

}  // namespace accrete::cache
