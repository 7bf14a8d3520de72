#include "kernels/attention/attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "kernels/attention/attend.h"
#include "kernels/thread_pool.h"

namespace accrete {
namespace {

constexpr int64_t kBlockTokens = 16;  // tokens of a sequence that read a head's slots together
constexpr int64_t kSplitSlots = 512;  // every softmax is made of parts of this many slots, merged in order, on however many threads
static_assert(kSplitSlots % kAttendSlots == 0);

// A part of a softmax over slots [split * kSplitSlots, ...) for the rows of an item.
struct Partial {
  float* m;  // [R]
  float* l;  // [R]
  float* o;  // [R, D]
};

// Tokens [begin, end) of one sequence for one KV head: R = tokens * G query rows.
struct Item {
  int64_t sequence = 0;
  int64_t head = 0;
  int32_t begin = 0;
  int32_t end = 0;
};

// Everything about a call that the loops share. One per thread is kept for its buffers.
class HeadAttention {
 public:
  HeadAttention(const Attention& op, AttendFn loops)
      : op_(op),
        loops_(loops),
        size_(op.q.shape[2]),
        group_(op.q.shape[1] / op.own_k.shape[1]),
        page_slots_(op.cache.page_slots),
        scale_(1.0f / std::sqrt(static_cast<float>(size_))) {
    CHECK(op.q.shape[1] % op.own_k.shape[1] == 0, op.q.shape[1], op.own_k.shape[1]);
    CHECK(kAttendSlots % page_slots_ == 0 || page_slots_ % kAttendSlots == 0, page_slots_);
  }

  int64_t partial_floats(int64_t rows) const { return rows * (size_ + 2); }
  int64_t rows(const Item& item) const { return (item.end - item.begin) * group_; }
  Partial partial(float* memory, int64_t rows) const { return {memory, memory + rows, memory + 2 * rows}; }

  int64_t splits(const Item& item) const {
    int32_t most = 0;
    for (int32_t t = item.begin; t < item.end; ++t) most = std::max(most, op_.own_slot(t, item.head));
    return (most + kSplitSlots - 1) / kSplitSlots;
  }

  // One split of an item's closed slots.
  void attend_split(const Item& item, int64_t split, const Partial& into) const {
    AttendRows rows = begin_rows(item, into);
    int32_t most = 0;
    for (int64_t r = 0; r < rows.rows; ++r) most = std::max(most, rows.limit[r]);
    const int64_t end = std::min<int64_t>(most, (split + 1) * kSplitSlots);
    for (int64_t first = split * kSplitSlots; first < end; first += kAttendSlots) {
      attend_run(item, rows, first, std::min<int64_t>(kAttendSlots, end - first));
    }
  }

  // The token's own entry as one more part, then all parts in order into op.out.
  void merge(const Item& item, const float* partials, int64_t count) const {
    const int64_t n = rows(item);
    for (int64_t r = 0; r < n; ++r) merge_row(item, partials, count, r);
  }

 private:
  // Rows of an item with an empty softmax.
  AttendRows begin_rows(const Item& item, const Partial& into) const {
    thread_local std::vector<float> queries;
    thread_local std::vector<int32_t> limits;
    const int64_t n = rows(item);
    queries.resize(n * size_);
    limits.resize(n);
    const View<const float, 3> q = op_.q.as<const float>();
    for (int64_t r = 0; r < n; ++r) {
      const int64_t t = item.begin + r / group_;
      limits[r] = op_.own_slot(t, item.head);
      std::copy_n(&q(t, item.head * group_ + r % group_, 0), size_, queries.data() + r * size_);
    }
    std::fill_n(into.m, n, -std::numeric_limits<float>::infinity());
    std::fill_n(into.l, n, 0.0f);
    std::fill_n(into.o, n * size_, 0.0f);
    return {queries.data(), size_, limits.data(), n, size_, scale_, into.m, into.l, into.o};
  }

  void attend_run(const Item& item, const AttendRows& rows, int64_t first, int64_t count) const {
    const float* keys[kAttendSlots];
    const float* values[kAttendSlots];
    thread_local std::vector<float> wide;  // bf16 pages, widened
    const bool narrow = op_.cache.pages.dtype == DType::bf16;
    if (narrow) wide.resize(2 * kAttendSlots * size_);
    const int64_t run = std::min<int64_t>(page_slots_, kAttendSlots);
    for (int64_t s = 0; s < count; s += run) {
      const int64_t slot = first + s;
      const int32_t page = op_.cache.page_rows(op_.layer, op_.batch.row(item.sequence), item.head, slot / page_slots_);
      const int64_t at = page * op_.cache.pages.stride[0] + slot % page_slots_ * size_;
      const int64_t part = s / run;
      if (narrow) {
        widen(at, run, wide.data() + s * size_);
        widen(at + op_.cache.pages.stride[1], run, wide.data() + (kAttendSlots + s) * size_);
        keys[part] = wide.data() + s * size_;
        values[part] = wide.data() + (kAttendSlots + s) * size_;
      } else {
        keys[part] = static_cast<const float*>(op_.cache.pages.data) + at;
        values[part] = keys[part] + op_.cache.pages.stride[1];
      }
    }
    loops_(rows, {keys, values, run, first, count});
  }

  void widen(int64_t at, int64_t slots, float* out) const {
    const bf16* from = static_cast<const bf16*>(op_.cache.pages.data) + at;
    for (int64_t i = 0; i < slots * size_; ++i) out[i] = static_cast<float>(from[i]);
  }

  void merge_row(const Item& item, const float* partials, int64_t count, int64_t r) const {
    const int64_t n = rows(item), t = item.begin + r / group_, head = item.head * group_ + r % group_;
    const float* q = &op_.q.as<const float>()(t, head, 0);
    const float* k = &op_.own_k.as<const float>()(t, item.head, 0);
    const float* v = &op_.own_v.as<const float>()(t, item.head, 0);
    float score = 0.0f;
    for (int64_t d = 0; d < size_; ++d) score += q[d] * k[d];
    score *= scale_;
    float top = score;
    for (int64_t i = 0; i < count; ++i) top = std::max(top, partials[i * partial_floats(n) + r]);
    const float own = std::exp(score - top);
    float total = own;
    float* out = &op_.out.as<float>()(t, head, 0);
    for (int64_t d = 0; d < size_; ++d) out[d] = own * v[d];
    for (int64_t i = 0; i < count; ++i) {
      const float* part = partials + i * partial_floats(n);
      const float factor = std::exp(part[r] - top);
      if (factor == 0.0f) continue;  // this row saw none of the part's slots
      total += factor * part[n + r];
      const float* o = part + 2 * n + r * size_;
      for (int64_t d = 0; d < size_; ++d) out[d] += factor * o[d];
    }
    for (int64_t d = 0; d < size_; ++d) out[d] /= total;
  }

  const Attention& op_;
  AttendFn loops_;
  int64_t size_, group_, page_slots_;
  float scale_;
};

void make_items(const Attention& op, std::vector<Item>& items) {
  items.clear();
  for (int64_t i = 0; i < op.batch.sequences(); ++i) {
    const int32_t end = op.batch.token_begin(i + 1);
    for (int32_t t = op.batch.token_begin(i); t < end; t += kBlockTokens) {
      for (int64_t h = 0; h < op.own_k.shape[1]; ++h) {
        items.push_back({i, h, t, std::min<int32_t>(end, t + static_cast<int32_t>(kBlockTokens))});
      }
    }
  }
}

// Work of one thread: an item's split. Offsets say where its partial lies.
struct Piece {
  int32_t item;
  int32_t split;
  int64_t offset;
};

struct Plan {
  std::vector<Item> items;
  std::vector<Piece> pieces;
  std::vector<int64_t> first_piece;  // [items + 1]
  std::vector<float> partials;
};

void make_plan(const Attention& op, const HeadAttention& head, Plan& plan) {
  make_items(op, plan.items);
  plan.pieces.clear();
  plan.first_piece.clear();
  int64_t offset = 0;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    plan.first_piece.push_back(static_cast<int64_t>(plan.pieces.size()));
    const int64_t splits = head.splits(plan.items[i]);
    for (int64_t s = 0; s < splits; ++s) {
      plan.pieces.push_back({static_cast<int32_t>(i), static_cast<int32_t>(s), offset});
      offset += head.partial_floats(head.rows(plan.items[i]));
    }
  }
  plan.first_piece.push_back(static_cast<int64_t>(plan.pieces.size()));
  if (static_cast<int64_t>(plan.partials.size()) < offset) plan.partials.resize(offset);
}

}  // namespace

void attention_cpu(const Attention& op, Stream& stream) {
  thread_local Plan plan;  // of the step thread; its buffers grow to the largest step once
  const HeadAttention head(op, attend(cpu_isa()));
  make_plan(op, head, plan);
  stream.pool->run(static_cast<int64_t>(plan.pieces.size()), [&, work = &plan](int64_t i) {
    const Piece& piece = work->pieces[i];
    const Item& item = work->items[piece.item];
    head.attend_split(item, piece.split, head.partial(work->partials.data() + piece.offset, head.rows(item)));
  });
  stream.pool->run_ranges(static_cast<int64_t>(plan.items.size()), 8, [&, work = &plan](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t first = work->first_piece[i], count = work->first_piece[i + 1] - first;
      const float* partials = count > 0 ? work->partials.data() + work->pieces[first].offset : nullptr;
      head.merge(work->items[i], partials, count);
    }
  });
}

}  // namespace accrete
