#include "cache/ledger.h"

#include <algorithm>

#include "kernels/check.h"

namespace accrete::cache {

int64_t worst_case_pages(const RowUse& use, int64_t heads, int64_t tokens, int32_t page_slots) {
  if (tokens <= 0) return 0;
  const auto pages = [&](int64_t room) { return (std::max<int64_t>(0, tokens - room) + page_slots - 1) / page_slots; };
  const int64_t full = use.full_heads, last = use.last_slot_heads;
  return full * pages(0) + last * pages(1) + (heads - full - last) * pages(2);
}

Ledger::Ledger(std::vector<int64_t> pages) : pages_(std::move(pages)), free_(pages_), reserved_(pages_.size()) {}

void Ledger::reserve(int rank, int64_t pages) {
  CHECK(pages >= 0 && pages <= surely_free(rank), rank, pages, surely_free(rank));
  reserved_[rank] += pages;
}

void Ledger::settle(int rank, int64_t taken, int64_t reserved) {
  CHECK(taken >= 0 && taken <= reserved && reserved <= reserved_[rank], rank, taken, reserved, reserved_[rank]);
  free_[rank] -= taken;
  reserved_[rank] -= reserved;
}

void Ledger::took(int rank, int64_t pages) {
  CHECK(pages <= surely_free(rank), rank, pages, surely_free(rank));
  free_[rank] -= pages;
}

void Ledger::released(int rank, int64_t pages) {
  free_[rank] += pages;
  CHECK(free_[rank] <= pages_[rank], rank, free_[rank], pages_[rank]);
}

}  // namespace accrete::cache
