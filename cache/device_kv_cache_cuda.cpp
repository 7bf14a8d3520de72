#include "cache/device_kv_cache.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "cache/audit.h"
#include "kernels/check.h"
#include "kernels/paging/cache_ops.h"

namespace accrete::cache {
namespace {

constexpr int64_t kUseFields = 4;   // pages, slots, full heads, heads with one slot left
constexpr int64_t kPoolFields = 2;  // free pages, exhausted

size_t ints(int64_t count) { return static_cast<size_t>(count) * sizeof(int32_t); }
size_t ring_vector_bytes(const KvCacheShape& s) { return s.table_heads() * s.ring_entries() * s.head_size * size_of(s.ring_dtype()); }

// The view of `memory` as elements of type `dtype`.
AnyView<4> any_view(const DeviceMemory& memory, DType dtype, const std::array<int64_t, 4>& dims) {
  if (dtype == DType::bf16) return View<bf16, 4>(memory.as<bf16>(), dims);
  return View<float, 4>(memory.as<float>(), dims);
}

}  // namespace

UseReport::UseReport(int64_t rows) : rows_(rows), memory_((rows * kUseFields + kPoolFields) * sizeof(int64_t)) {
  std::memset(memory_.data(), 0, memory_.bytes());
}
RowUse UseReport::row(int64_t i) const {
  CHECK(i >= 0 && i < rows_, i, rows_);
  const int64_t* fields = memory_.as<int64_t>() + i * kUseFields;
  return {fields[0], fields[1], static_cast<int32_t>(fields[2]), static_cast<int32_t>(fields[3])};
}
int64_t UseReport::free_pages() const { return memory_.as<int64_t>()[rows_ * kUseFields]; }
bool UseReport::exhausted() const { return memory_.as<int64_t>()[rows_ * kUseFields + 1] != 0; }
View<int64_t, 2> UseReport::uses() { return {memory_.as<int64_t>(), {rows_, kUseFields}}; }
View<int64_t, 1> UseReport::pool() { return {memory_.as<int64_t>() + rows_ * kUseFields, {kPoolFields}}; }

struct DeviceKvCache::State {
  State(const KvCacheShape& s, const Stream& on, int64_t piece);

  PoolTickets read_tickets();
  void upload(const std::vector<RowHead>& layout);
  RowWords window(int32_t row, int64_t i, int64_t total) const;
  int64_t device_bytes() const;
  // A copy of a table; waits.
  std::vector<int32_t> read_table(const DeviceMemory& table);
  CacheRef ref() const;

  KvCacheShape shape;
  Stream stream;
  int64_t move_words;  // of a piece
  DeviceMemory arena;  // [N, 2, S, D]
  DeviceMemory slots;      // [L, B, Hkv]
  DeviceMemory segment;    // [L, B, Hkv]
  DeviceMemory page_rows;  // [L, B, Hkv, max_pages]
  DeviceMemory ring_k;     // [L, B, Hkv, max(W, 1), D]
  DeviceMemory ring_v;     // the same
  DeviceMemory ring_w;     // [L, B, Hkv, max(W, 1)]
  DeviceMemory free_ring;  // [N]
  DeviceMemory tickets;    // PoolTickets
  DeviceMemory heads;      // [L * Hkv + 1] RowHead of the row that moves
  std::array<DeviceMemory, 2> piece;        // [move_words], what moves
  std::array<PinnedMemory, 2> host_piece;   // its other end
  std::array<DeviceEvent, 2> piece_copied;
  PinnedMemory host_heads;
  PinnedMemory host_tickets;
  PinnedMemory host_counts;  // [B, L * Hkv]
};

DeviceKvCache::State::State(const KvCacheShape& s, const Stream& on, int64_t piece_bytes)
    : shape(s),
      stream(on),
      move_words(piece_bytes / static_cast<int64_t>(sizeof(uint32_t))),
      arena(s.pages * s.page_bytes()),
      slots(ints(s.table_heads())),
      segment(s.dmc ? ints(s.table_heads()) : 0),
      page_rows(ints(s.table_heads() * s.max_pages())),
      ring_k(ring_vector_bytes(s)),
      ring_v(ring_vector_bytes(s)),
      ring_w(s.table_heads() * s.ring_entries() * sizeof(float)),
      free_ring(ints(s.pages)),
      tickets(sizeof(PoolTickets)),
      heads((s.heads() + 1) * sizeof(RowHead)),
      piece{DeviceMemory(kMoveBytes), DeviceMemory(kMoveBytes)},
      host_piece{PinnedMemory(kMoveBytes), PinnedMemory(kMoveBytes)},
      host_heads(heads.bytes()),
      host_tickets(sizeof(PoolTickets)),
      host_counts(slots.bytes()) {
  // The arena too: attention may multiply a page's unused slots by zero, and nothing may come of that but zero.
  for (const DeviceMemory* memory : {&arena, &slots, &segment, &ring_k, &ring_v, &ring_w}) {
    fill_device(memory->data(), 0, memory->bytes(), stream);
  }
  static_assert(kNoPage == -1);
  fill_device(page_rows.data(), 0xff, page_rows.bytes(), stream);
  fill_pool_cuda(ref().pool, &tickets.as<PoolTickets>()->give, stream);
}

CacheRef DeviceKvCache::State::ref() const {
  const int64_t layers = shape.layers, rows = shape.sequences, kv_heads = shape.kv_heads, entries = shape.ring_entries();
  CacheRef ref;
  ref.pages = any_view(arena, shape.dtype, {shape.pages, 2, shape.page_slots, shape.head_size});
  ref.slots = View<int32_t, 3>(slots.as<int32_t>(), {layers, rows, kv_heads});
  ref.page_rows = View<int32_t, 4>(page_rows.as<int32_t>(), {layers, rows, kv_heads, shape.max_pages()});
  if (shape.dmc) {
    ref.ring_k = any_view(ring_k, shape.ring_dtype(), {layers, rows, kv_heads, entries * shape.head_size});
    ref.ring_v = any_view(ring_v, shape.ring_dtype(), {layers, rows, kv_heads, entries * shape.head_size});
    ref.ring_w = View<float, 4>(ring_w.as<float>(), {layers, rows, kv_heads, entries});
    ref.segment = View<int32_t, 3>(segment.as<int32_t>(), {layers, rows, kv_heads});
  }
  auto* pool = tickets.as<PoolTickets>();
  ref.pool = {free_ring.as<int32_t>(), &pool->take, &pool->give, &pool->exhausted, static_cast<int32_t>(shape.pages)};
  ref.page_slots = shape.page_slots;
  return ref;
}

PoolTickets DeviceKvCache::State::read_tickets() {
  copy_to_host(host_tickets.data(), tickets.data(), sizeof(PoolTickets), stream);
  synchronize(stream);
  return *host_tickets.as<PoolTickets>();
}

std::vector<int32_t> DeviceKvCache::State::read_table(const DeviceMemory& table) {
  std::vector<int32_t> values(table.bytes() / sizeof(int32_t));
  copy_to_host(values.data(), table.data(), table.bytes(), stream);
  synchronize(stream);
  return values;
}

// The pinned copy is free again when the stream has been waited for, as every move of a row ends.
void DeviceKvCache::State::upload(const std::vector<RowHead>& layout) {
  std::memcpy(host_heads.data(), layout.data(), host_heads.bytes());
  copy_to_device(heads.data(), host_heads.data(), host_heads.bytes(), stream);
}

int64_t DeviceKvCache::State::device_bytes() const {
  int64_t bytes = 0;
  for (const DeviceMemory* memory : {&arena, &slots, &segment, &page_rows, &ring_k, &ring_v, &ring_w, &free_ring, &tickets, &heads, &piece[0], &piece[1]}) {
    bytes += static_cast<int64_t>(memory->bytes());
  }
  return bytes;
}

DeviceKvCache::DeviceKvCache(const KvCacheShape& shape, const Stream& stream, int64_t move_bytes) {
  check_shape(shape);
  CHECK(shape.device);
  CHECK(stream.cuda != nullptr);
  CHECK(move_bytes > 0 && move_bytes % 4 == 0 && move_bytes <= kMoveBytes, move_bytes);
  state_ = std::make_unique<State>(shape, stream, move_bytes);
}

DeviceKvCache::~DeviceKvCache() = default;

const KvCacheShape& DeviceKvCache::shape() const { return state_->shape; }
CacheRef DeviceKvCache::ref() { return state_->ref(); }
int64_t DeviceKvCache::device_bytes() const { return state_->device_bytes(); }

void DeviceKvCache::release(std::span<const int32_t> rows) {
  std::vector<bool> listed(state_->shape.sequences, false);
  for (int32_t row : rows) {
    CHECK(row >= 0 && row < state_->shape.sequences && !listed[row], row, state_->shape.sequences);
    listed[row] = true;
  }
  release_rows_cuda({state_->ref(), &state_->tickets.as<PoolTickets>()->give, rows}, state_->stream);
}

void DeviceKvCache::use(View<const int32_t, 1> rows, UseReport& report) {
  row_use_cuda({state_->ref(), rows, report.uses(), report.pool()}, state_->stream);
}

void DeviceKvCache::use(View<const int32_t, 1> rows, View<int64_t, 2> uses, View<int64_t, 1> pool) {
  row_use_cuda({state_->ref(), rows, uses, pool}, state_->stream);
}

void DeviceKvCache::count_slots(std::span<const int32_t> rows, View<int32_t, 2> counts) {
  if (!rows.empty()) count_slots_cuda({state_->ref(), rows, counts}, state_->stream);
}

RowUse DeviceKvCache::use(int32_t row) {
  RowUse use;
  for (int32_t slots : slot_counts(row)) use.add_head(slots, state_->shape.page_slots);
  return use;
}

int64_t DeviceKvCache::free_pages() {
  const PoolTickets tickets = state_->read_tickets();
  CHECK(tickets.take <= tickets.give && tickets.give - tickets.take <= static_cast<uint64_t>(state_->shape.pages), tickets.take, tickets.give);
  return static_cast<int64_t>(tickets.give - tickets.take);
}

int64_t DeviceKvCache::bytes_in_use() { return (state_->shape.pages - free_pages()) * state_->shape.page_bytes(); }

bool DeviceKvCache::take_exhausted() {
  if (state_->read_tickets().exhausted == 0) return false;
  fill_device(&state_->tickets.as<PoolTickets>()->exhausted, 0, sizeof(int32_t), state_->stream);
  return true;
}

std::vector<int32_t> DeviceKvCache::slot_counts(std::span<const int32_t> rows) {
  State& s = *state_;
  const int64_t count = static_cast<int64_t>(rows.size());
  CHECK(count <= s.shape.sequences, count, s.shape.sequences);
  const View<int32_t, 2> counts(s.host_counts.as<int32_t>(), {count, s.shape.heads()});
  count_slots_cuda({s.ref(), rows, counts}, s.stream);
  synchronize(s.stream);
  return {counts.data, counts.data + counts.size()};
}

// Piece `i` of a row's image of `total` words.
RowWords DeviceKvCache::State::window(int32_t row, int64_t i, int64_t total) const {
  RowWords op;
  op.cache = ref();
  op.row = row;
  op.heads = View<const RowHead, 1>(heads.as<RowHead>(), {shape.heads() + 1});
  op.first = i * move_words;
  op.words = View<uint32_t, 1>(piece[i % 2].as<uint32_t>(), {std::min(move_words, total - op.first)});
  return op;
}

std::vector<std::byte> DeviceKvCache::export_row(int32_t row) {
  State& s = *state_;
  const std::vector<RowHead> heads = row_heads(s.shape, slot_counts(row), {});
  s.upload(heads);
  std::vector<std::byte> out(snapshot_bytes(heads));
  const SnapshotHeader header = make_header(s.shape, heads.back().page_begin);
  std::memcpy(out.data(), &header, sizeof(header));
  const int64_t total = heads.back().word_begin, pieces = (total + s.move_words - 1) / s.move_words;
  const auto start = [&](int64_t i) {
    const RowWords op = s.window(row, i, total);
    gather_row_cuda(op, s.stream);
    copy_to_host(s.host_piece[i % 2].data(), op.words.data, op.words.size() * sizeof(uint32_t), s.stream);
    s.piece_copied[i % 2].record(s.stream);
  };
  start(0);
  for (int64_t i = 0; i < pieces; ++i) {
    if (i + 1 < pieces) start(i + 1);  // under way while this one is read
    s.piece_copied[i % 2].wait();
    const RowWords op = s.window(row, i, total);
    std::memcpy(out.data() + sizeof(header) + op.first * sizeof(uint32_t), s.host_piece[i % 2].data(), op.words.size() * sizeof(uint32_t));
  }
  seal(out);
  return out;
}

bool DeviceKvCache::import_row(int32_t row, std::span<const std::byte> snapshot) {
  State& s = *state_;
  open_snapshot(snapshot, s.shape);
  CHECK(use(row).slots == 0, row);
  const std::vector<RowHead> heads = read_row_heads(snapshot, s.shape);
  if (heads.back().page_begin > free_pages()) return false;
  s.upload(heads);
  const int64_t total = heads.back().word_begin, pieces = (total + s.move_words - 1) / s.move_words;
  take_row_cuda({s.ref(), row, s.window(row, 0, total).heads}, s.stream);
  for (int64_t i = 0; i < pieces; ++i) {
    const RowWords op = s.window(row, i, total);
    const size_t bytes = op.words.size() * sizeof(uint32_t);
    if (i >= 2) s.piece_copied[i % 2].wait();
    std::memcpy(s.host_piece[i % 2].data(), snapshot.data() + sizeof(SnapshotHeader) + op.first * sizeof(uint32_t), bytes);
    copy_to_device(op.words.data, s.host_piece[i % 2].data(), bytes, s.stream);
    s.piece_copied[i % 2].record(s.stream);
    scatter_row_cuda(op, s.stream);
  }
  synchronize(s.stream);
  return true;
}

std::optional<std::string> DeviceKvCache::audit() {
  State& s = *state_;
  const PoolTickets tickets = s.read_tickets();
  if (tickets.take > tickets.give || tickets.give - tickets.take > static_cast<uint64_t>(s.shape.pages)) return "the pool's tickets have crossed";
  const std::vector<int32_t> slots = s.read_table(s.slots), segment = s.read_table(s.segment), page_rows = s.read_table(s.page_rows),
                             ring = s.read_table(s.free_ring);
  std::vector<int32_t> free_list;
  for (uint64_t ticket = tickets.take; ticket < tickets.give; ++ticket) free_list.push_back(ring[ticket % ring.size()]);
  return audit_tables(s.shape, {slots, segment, page_rows, free_list});
}

}  // namespace accrete::cache
