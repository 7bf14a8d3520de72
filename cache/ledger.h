// Ledger: the host's bound on pages. Tokens are handed to the ranks only if their worst case (each of them appends in every head) fits the
// pages that are surely free on the tightest rank; so the update op never runs dry. Pure; owned by the leader's step thread.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "cache/kv_cache.h"

namespace accrete::cache {

// Most pages that `tokens` more tokens of one sequence can take on a rank with `heads` = layers * kv_heads caches. A head with room r in
// its last page takes ceil((n - r) / S) at most; r is 0 for use.full_heads, 1 for use.last_slot_heads, and counts as 2 for the others.
int64_t worst_case_pages(const RowUse& use, int64_t heads, int64_t tokens, int32_t page_slots);

// Per rank: pages free as far as reports tell, less what tokens in flight may take.
class Ledger {
 public:
  explicit Ledger(std::vector<int64_t> pages);  // N of each rank

  int ranks() const { return static_cast<int>(pages_.size()); }
  // Free as of the last reports and releases, tokens in flight not counted.
  int64_t free_pages(int rank) const { return free_[rank]; }
  // Pages surely free on `rank` now.
  int64_t surely_free(int rank) const { return free_[rank] - reserved_[rank]; }
  // Tokens may take so many more. The caller checked that they fit.
  void reserve(int rank, int64_t pages);
  // Tokens are through: of `reserved` pages that were reserved for them `taken` were taken, the others are free again.
  void settle(int rank, int64_t taken, int64_t reserved);
  // Pages that an import takes, known beforehand from its snapshot.
  void took(int rank, int64_t pages);
  // Pages given back by a release that every rank executes before any later step.
  void released(int rank, int64_t pages);

 private:
  std::vector<int64_t> pages_, free_, reserved_;
};

}  // namespace accrete::cache
