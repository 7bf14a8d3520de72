// What happens to caches between steps: rows given back, counted, taken, moved out and in.
#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <numeric>

#include "cache/device_kv_cache.h"
#include "cache/kv_cache_shape.h"
#include "cache/snapshot.h"
#include "kernels/paging/cache_ops.h"
#include "launch/bench/kernels/costs.h"
#include "launch/bench/kernels/draws.h"
#include "launch/bench/kernels/lab.h"

namespace accrete::launch {
namespace {

constexpr int64_t kRows = 64;
constexpr int64_t kEmptyRows = 4;  // the first ones: for take_row
constexpr int64_t kMeanSlots = 256;
constexpr int32_t kWindow = 12;
constexpr int64_t kPieceWords = cache::kMoveBytes / static_cast<int64_t>(sizeof(uint32_t));
constexpr double kPageEntry = kWord;  // bytes of a page's id in a table or the free list

// A cache of kRows rows of a whole model, made when first wanted, and the layout of the last row's image.
class Books {
 public:
  Books(Lab& on, const ModelShape& m) : lab(on), model(m), lengths_(drawn_lengths(m)), layout_(row_layout(kRows - 1)) {}

  // As it was made.
  RandomCache& cache() {
    if (!cache_) {
      cache_ = std::make_unique<RandomCache>(lengths_, lab.pages(), lab.stream());
      heads_ = DeviceArray<RowHead>(layout_, lab.stream());
    }
    cache_->reset(lab.stream());
    return *cache_;
  }
  View<const RowHead, 1> layout() const { return heads_.flat(); }  // once there is a cache
  const RowHead& layout_end() const { return layout_.back(); }
  int64_t heads() const { return model.layers * model.kv_heads; }
  // Bytes that giving a row's pages back moves: ids read, put into the free list, wiped; counts read and wiped.
  double release_bytes(int64_t row) const {
    return 3 * kPageEntry * static_cast<double>(row_layout(row).back().page_begin) + 3 * kWord * static_cast<double>(heads());
  }

  Lab& lab;
  const ModelShape& model;

 private:
  static CacheLengths drawn_lengths(const ModelShape& m);
  std::vector<RowHead> row_layout(int64_t row) const;

  CacheLengths lengths_;
  std::vector<RowHead> layout_;  // [L * Hkv + 1]
  std::unique_ptr<RandomCache> cache_;
  DeviceArray<RowHead> heads_;
};

CacheLengths Books::drawn_lengths(const ModelShape& m) {
  CacheLengths lengths{.layers = m.layers, .rows = kRows, .kv_heads = m.kv_heads};
  lengths.slots = spread_lengths({.count = lengths.heads(), .mean = kMeanSlots}, 61);
  for (int64_t i = 0; i < lengths.heads(); ++i) {
    if (i / m.kv_heads % kRows < kEmptyRows) lengths.slots[i] = 0;
  }
  lengths.window = kWindow;
  return lengths;
}

std::vector<RowHead> Books::row_layout(int64_t row) const {
  cache::KvCacheShape shape{.layers = model.layers, .kv_heads = model.kv_heads, .head_size = kBenchHeadSize, .sequences = kRows};
  shape.page_slots = kBenchPageSlots;
  shape.window = kWindow;
  shape.dmc = true;
  shape.dtype = DType::bf16;
  shape.device = true;
  std::vector<int32_t> slots;
  for (int64_t layer = 0; layer < model.layers; ++layer) {
    const auto first = lengths_.slots.begin() + (layer * kRows + row) * model.kv_heads;
    slots.insert(slots.end(), first, first + model.kv_heads);
  }
  return cache::row_heads(shape, slots, std::vector<int32_t>(slots.size(), 1));
}

Label label_of(const ModelShape& model, const char* kernel, const std::string& shape) { return {kernel, std::string(model.name), shape}; }

void measure_release(Books& books, int64_t rows) {
  Lab& lab = books.lab;
  const Label label = label_of(books.model, "release_rows", fmt::format("{} row{} of {} heads, {} slots", rows, rows == 1 ? "" : "s", books.heads(), kMeanSlots));
  if (!lab.wants(label)) return;
  RandomCache& cache = books.cache();
  std::vector<int32_t> all(kRows);
  std::iota(all.begin(), all.end(), 0);
  const int64_t turns = std::min<int64_t>(8, (kRows - kEmptyRows) / rows);
  const auto launch = [&](int64_t turn) {
    const auto mine = std::span<const int32_t>(all).subspan(kEmptyRows + turn * rows, rows);
    release_rows_cuda({cache.ref(), cache.give_ticket(), mine}, lab.stream());
  };
  double bytes = 0;
  for (int64_t row = kEmptyRows; row < kEmptyRows + turns * rows; ++row) bytes += books.release_bytes(row) / static_cast<double>(turns);
  lab.record(label, {.bytes = bytes}, {.launch = launch, .turns = turns, .reset = [&] { cache.reset(lab.stream()); }});
}

// What one query of all rows reports, beside the slot counts of all of them.
void measure_use(Books& books) {
  Lab& lab = books.lab;
  const std::string shape = fmt::format("{} rows of {} heads", kRows, books.heads());
  const Label use = label_of(books.model, "row_use", shape), count = label_of(books.model, "count_slots", shape);
  if (!lab.wants(use) && !lab.wants(count)) return;
  const CacheRef caches = books.cache().ref();
  std::vector<int32_t> all(kRows);
  std::iota(all.begin(), all.end(), 0);
  const DeviceArray<int32_t> rows(all, lab.stream());
  cache::UseReport report(kRows);
  const PinnedMemory counted(kRows * books.heads() * sizeof(int32_t));
  const View<int32_t, 2> counts(counted.as<int32_t>(), {kRows, books.heads()});
  const auto ask_use = [&](int64_t) { row_use_cuda({caches, rows.flat(), report.uses(), report.pool()}, lab.stream()); };
  const auto ask_count = [&](int64_t) { count_slots_cuda({caches, all, counts}, lab.stream()); };
  const Cost cost{.bytes = kWord * static_cast<double>(kRows * books.heads()), .memory = MemoryLimit::read};
  if (lab.wants(use)) lab.record(use, cost, {.launch = ask_use});
  if (lab.wants(count)) lab.record(count, cost, {.launch = ask_count});
}

void measure_take(Books& books) {
  Lab& lab = books.lab;
  const Label label = label_of(books.model, "take_row", fmt::format("1 row of {} heads, {} slots", books.heads(), kMeanSlots));
  if (!lab.wants(label)) return;
  RandomCache& cache = books.cache();
  const auto launch = [&](int64_t turn) { take_row_cuda({cache.ref(), static_cast<int32_t>(turn), books.layout()}, lab.stream()); };
  const double bytes = 2 * kPageEntry * static_cast<double>(books.layout_end().page_begin) + (sizeof(RowHead) + 2 * kWord) * static_cast<double>(books.heads());
  lab.record(label, {.bytes = bytes}, {.launch = launch, .turns = kEmptyRows, .reset = [&] { cache.reset(lab.stream()); }});
  cache.check_enough_pages(lab.stream());
}

// A row's image out of the cache and into it again, in the pieces in which it travels.
void measure_moves(Books& books) {
  Lab& lab = books.lab;
  const std::string shape = fmt::format("{:.0f} MB in pieces of 4 MiB", static_cast<double>(books.layout_end().word_begin) * 4e-6);
  const Label out = label_of(books.model, "gather_row", shape), in = label_of(books.model, "scatter_row", shape);
  if (!lab.wants(out) && !lab.wants(in)) return;
  RandomCache& cache = books.cache();
  const int64_t pieces = books.layout_end().word_begin / kPieceWords;
  const DeviceArray<uint32_t> image(pieces * kPieceWords);
  const auto words = [&](int64_t piece) {
    return RowWords{cache.ref(), static_cast<int32_t>(kRows - 1), books.layout(), piece * kPieceWords, image.view<1>({kPieceWords}, piece * kPieceWords)};
  };
  const auto gather = [&](int64_t piece) { gather_row_cuda(words(piece), lab.stream()); };
  const auto scatter = [&](int64_t piece) { scatter_row_cuda(words(piece), lab.stream()); };
  for (int64_t piece = 0; piece < pieces; ++piece) gather(piece);  // what scatter puts back
  const Cost cost{.bytes = 2.0 * cache::kMoveBytes};
  if (lab.wants(out)) lab.record(out, cost, {.launch = gather, .turns = pieces});
  if (lab.wants(in)) lab.record(in, cost, {.launch = scatter, .turns = pieces});
}

}  // namespace

void measure_bookkeeping(Lab& lab, const ModelShape& model) {
  Books books(lab, model);
  measure_release(books, 1);
  if (!lab.quick()) measure_release(books, 16);
  measure_take(books);
  measure_use(books);
  measure_moves(books);
}

}  // namespace accrete::launch
