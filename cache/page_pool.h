// PagePool: which pages are free. Owns the circular free list; ops take from it through a PagePoolRef during a step, the owner gives
// back between steps. Owned by the step thread.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/paging/page_pool_ref.h"

namespace accrete::cache {

class PagePool {
 public:
  explicit PagePool(int32_t pages);

  PagePoolRef ref();
  int64_t free_pages() const { return static_cast<int64_t>(give_ticket_ - take_ticket_); }
  int32_t pages() const { return static_cast<int32_t>(free_ring_.size()); }

  int32_t take() { return ref().take(); }
  // Between steps only.
  void give(int32_t page);
  // True once after a take found nothing.
  bool take_exhausted();

  // The free pages, oldest first: for audits.
  std::vector<int32_t> free_list() const;

 private:
  std::vector<int32_t> free_ring_;
  uint64_t take_ticket_ = 0;
  uint64_t give_ticket_ = 0;
  int32_t exhausted_ = 0;
};

}  // namespace accrete::cache
