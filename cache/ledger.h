// Ledger: the host's bound on pages. A step is admitted only if its worst case (every token of it appends in every head) fits the
// pages that are surely free on the tightest rank; so the update op never runs dry. Pure; owned by the leader's step thread.
#pragma once

#include <cstdint>
#include <utility>
#include <vector>

#include "cache/kv_cache.h"

namespace accrete::cache {

// Most pages that `tokens` more tokens of one sequence can take on a rank with `heads` = layers * kv_heads caches, of which
// use.full_heads have no room in their last page:  full * ceil(n / S) + (heads - full) * ceil((n - 1) / S).
int64_t worst_case_pages(const RowUse& use, int64_t heads, int64_t tokens, int32_t page_slots);

// Per rank: free pages known from its last report, less the worst cases of steps in flight.
class Ledger {
 public:
  struct Rank {
    int64_t pages = 0;  // N
    int64_t heads = 0;  // L_local * Hkv_local
  };
  Ledger(std::vector<Rank> ranks, int32_t page_slots);

  int ranks() const;
  // Free as of the last reports and releases, steps in flight not counted.
  int64_t free_pages(int rank) const { return free_[rank]; }
  // Pages surely free on `rank` now.
  int64_t surely_free(int rank) const;
  // Reserves a step's worst cases (one entry a rank). The caller checked that they fit.
  void begin_step(uint64_t step, std::vector<int64_t> worst_case);
  // Each rank's report of the pages that `step` took, between nothing and its worst case. A difference, not a level: releases and other
  // steps in flight may have passed in between.
  void end_step(uint64_t step, const std::vector<int64_t>& taken);
  // Pages that an import takes, known beforehand from its snapshot.
  void took(int rank, int64_t pages);
  // Pages given back by a release that every rank executes before any later step.
  void released(int rank, int64_t pages);

 private:
  struct Flight {
    uint64_t step;
    std::vector<int64_t> worst_case;
  };
  std::vector<Rank> ranks_;
  std::vector<int64_t> free_;
  std::vector<Flight> flights_;
  int32_t page_slots_;
};

}  // namespace accrete::cache
