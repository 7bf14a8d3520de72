#include "cache/page_pool.h"

#include <numeric>

#include "kernels/check.h"

namespace accrete::cache {

PagePool::PagePool(int32_t pages) : free_ring_(pages), give_ticket_(pages) { std::iota(free_ring_.begin(), free_ring_.end(), 0); }

PagePoolRef PagePool::ref() { return {free_ring_.data(), &take_ticket_, &give_ticket_, &exhausted_, pages()}; }

void PagePool::give(int32_t page) {
  CHECK(page >= 0 && page < pages(), page, pages());
  CHECK(free_pages() < pages(), free_pages(), pages());
  free_ring_[give_ticket_ % free_ring_.size()] = page;
  ++give_ticket_;
}

bool PagePool::take_exhausted() {
  const bool was = exhausted_ != 0;
  exhausted_ = 0;
  return was;
}

std::vector<int32_t> PagePool::free_list() const {
  std::vector<int32_t> list;
  for (uint64_t ticket = take_ticket_; ticket < give_ticket_; ++ticket) list.push_back(free_ring_[ticket % free_ring_.size()]);
  return list;
}

}  // namespace accrete::cache
