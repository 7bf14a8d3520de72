#include "cache/ledger.h"

#include <algorithm>

#include "kernels/check.h"

namespace accrete::cache {

int64_t worst_case_pages(const RowUse& use, int64_t heads, int64_t tokens, int32_t page_slots) {
  if (tokens <= 0) return 0;
  const int64_t size = page_slots;
  const int64_t full = use.full_heads;
  return full * ((tokens + size - 1) / size) + (heads - full) * ((tokens - 1 + size - 1) / size);
}

Ledger::Ledger(std::vector<Rank> ranks, int32_t page_slots) : ranks_(std::move(ranks)), page_slots_(page_slots) {
  CHECK(page_slots_ > 0, page_slots_);
  for (const Rank& rank : ranks_) free_.push_back(rank.pages);
}

int Ledger::ranks() const { return static_cast<int>(ranks_.size()); }

int64_t Ledger::surely_free(int rank) const {
  int64_t pages = free_[rank];
  for (const Flight& flight : flights_) pages -= flight.worst_case[rank];
  return pages;
}

void Ledger::begin_step(uint64_t step, std::vector<int64_t> worst_case) {
  CHECK(worst_case.size() == ranks_.size(), worst_case.size(), ranks_.size());
  for (int rank = 0; rank < ranks(); ++rank) CHECK(worst_case[rank] <= surely_free(rank), rank, worst_case[rank], surely_free(rank));
  flights_.push_back({step, std::move(worst_case)});
}

void Ledger::end_step(uint64_t step, const std::vector<int64_t>& taken) {
  CHECK(taken.size() == ranks_.size(), taken.size(), ranks_.size());
  const auto flight = std::find_if(flights_.begin(), flights_.end(), [&](const Flight& f) { return f.step == step; });
  CHECK(flight != flights_.end(), step);
  for (int rank = 0; rank < ranks(); ++rank) {
    CHECK(taken[rank] >= 0 && taken[rank] <= flight->worst_case[rank], rank, taken[rank], flight->worst_case[rank]);
    free_[rank] -= taken[rank];
  }
  flights_.erase(flight);
}

void Ledger::took(int rank, int64_t pages) {
  CHECK(pages <= surely_free(rank), rank, pages, surely_free(rank));
  free_[rank] -= pages;
}

void Ledger::released(int rank, int64_t pages) {
  free_[rank] += pages;
  CHECK(free_[rank] <= ranks_[rank].pages, rank, free_[rank], ranks_[rank].pages);
}

}  // namespace accrete::cache
