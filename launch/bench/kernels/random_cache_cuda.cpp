#include "launch/bench/kernels/random_cache.h"

#include <algorithm>
#include <numeric>
#include <stdexcept>

#include "launch/bench/kernels/draws.h"

namespace accrete::launch {
namespace {

constexpr int64_t kPageElements = 2 * kBenchPageSlots * kBenchHeadSize;

int64_t pages_of(int64_t slots) { return (slots + kBenchPageSlots - 1) / kBenchPageSlots; }

template <class T>
void restore(const DeviceArray<T>& to, const DeviceArray<T>& from, Stream& stream) {
  copy_on_device(to.data(), from.data(), from.bytes(), stream);
}

}  // namespace

RandomPages::RandomPages(int64_t pages, Stream& stream) : values_(random_array<bf16>(pages * kPageElements, 11, 1.0f, stream)), order_(shuffled(pages, 12)) {}

AnyView<4> RandomPages::view() const { return values_.view<4>({count(), 2, kBenchPageSlots, kBenchHeadSize}); }

int64_t CacheLengths::max_pages() const { return pages_of(*std::max_element(slots.begin(), slots.end()) + spare_slots) + 1; }
int64_t CacheLengths::total_slots() const { return std::accumulate(slots.begin(), slots.end(), int64_t{0}); }

RandomCache::RandomCache(const CacheLengths& lengths, RandomPages& pages, Stream& stream) : lengths_(lengths), pages_(pages.view()) {
  CHECK(static_cast<int64_t>(lengths.slots.size()) == lengths.heads(), lengths.slots.size(), lengths.heads());
  if (lengths_.segment.empty()) lengths_.segment.assign(lengths_.slots.size(), 1);
  CHECK(lengths_.segment.size() == lengths_.slots.size(), lengths_.segment.size(), lengths_.slots.size());
  slots_ = DeviceArray<int32_t>(lengths_.slots, stream);
  first_slots_ = DeviceArray<int32_t>(lengths_.slots, stream);
  segment_ = DeviceArray<int32_t>(lengths_.segment, stream);
  first_segment_ = DeviceArray<int32_t>(lengths_.segment, stream);
  fill_tables(pages.order(), stream);
  if (lengths_.window > 0) fill_state(stream);
  synchronize(stream);
}

void RandomCache::fill_tables(std::span<const int32_t> order, Stream& stream) {
  const int64_t max_pages = lengths_.max_pages();
  std::vector<int32_t> page_rows(lengths_.heads() * max_pages, kNoPage);
  int64_t taken = 0;
  for (int64_t head = 0; head < lengths_.heads(); ++head) {
    const int64_t pages = pages_of(lengths_.slots[head]);
    CHECK(taken + pages <= static_cast<int64_t>(order.size()), taken, pages, order.size());
    std::copy_n(order.begin() + taken, pages, page_rows.begin() + head * max_pages);
    taken += pages;
  }
  page_rows_ = DeviceArray<int32_t>(page_rows, stream);
  first_page_rows_ = DeviceArray<int32_t>(page_rows, stream);
  free_ring_ = DeviceArray<int32_t>(order, stream);
  const std::vector<PoolTickets> tickets{{static_cast<uint64_t>(taken), order.size(), 0}};
  tickets_ = DeviceArray<PoolTickets>(tickets, stream);
  first_tickets_ = DeviceArray<PoolTickets>(tickets, stream);
}

void RandomCache::fill_state(Stream& stream) {
  const int64_t entries = lengths_.heads() * lengths_.window;
  ring_k_ = random_array<bf16>(entries * kBenchHeadSize, 13, 1.0f, stream);
  ring_v_ = random_array<bf16>(entries * kBenchHeadSize, 14, 1.0f, stream);
  Draws draws(15);
  std::vector<float> weights(entries);
  for (float& weight : weights) weight = 0.25f + 0.5f * static_cast<float>(draws.unit());
  ring_w_ = DeviceArray<float>(weights, stream);
}

CacheRef RandomCache::ref() const {
  const int64_t L = lengths_.layers, B = lengths_.rows, H = lengths_.kv_heads, W = lengths_.window;
  CacheRef ref;
  ref.pages = pages_;
  ref.slots = slots_.view<3>({L, B, H});
  ref.page_rows = page_rows_.view<4>({L, B, H, lengths_.max_pages()});
  ref.page_slots = kBenchPageSlots;
  PoolTickets* pool = tickets_.data();
  ref.pool = {free_ring_.data(), &pool->take, &pool->give, &pool->exhausted, static_cast<int32_t>(free_ring_.size())};
  if (W == 0) return ref;
  ref.segment = segment_.view<3>({L, B, H});
  ref.ring_k = ring_k_.view<4>({L, B, H, W * kBenchHeadSize});
  ref.ring_v = ring_v_.view<4>({L, B, H, W * kBenchHeadSize});
  ref.ring_w = ring_w_.view<4>({L, B, H, W});
  return ref;
}

uint64_t* RandomCache::give_ticket() const { return &tickets_.data()->give; }

// The free list needs none: entries that were given back lie before those that the tickets, set back, say are free.
void RandomCache::reset(Stream& stream) {
  restore(slots_, first_slots_, stream);
  restore(segment_, first_segment_, stream);
  restore(page_rows_, first_page_rows_, stream);
  restore(tickets_, first_tickets_, stream);
}

void RandomCache::check_enough_pages(Stream& stream) const {
  PoolTickets now;
  copy_to_host(&now, tickets_.data(), sizeof(now), stream);
  synchronize(stream);
  if (now.exhausted != 0) throw std::runtime_error("the pool of pages ran dry: the launches did less than they should");
}

}  // namespace accrete::launch
