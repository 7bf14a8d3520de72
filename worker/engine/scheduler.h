// Scheduler: which sequences run in the next step, with how many tokens, and who gives way when pages run out. Pure: no clock, socket,
// stream or log; the caller owns the sequences, the ledger and time. Used by the leader's step thread only.
//
//   decodes first (one token each), then chunks of prompts in the rest of the token budget, the most urgent and then the shortest first,
//   beside an even share for the first in order; first come, first served at the door, within a priority. A step is planned only if its worst case fits the pages that are surely free on the tightest rank.
//
// With `lookahead` a step is planned while the one before is in flight. Nobody is preempted then: when a decode does not fit, the plan is
// empty until nothing is in flight.
#pragma once

#include <cstdint>
#include <list>
#include <string>
#include <vector>

#include "cache/ledger.h"
#include "worker/engine/request.h"

namespace accrete::worker {

// A rank's share of the cache, as the scheduler must know it.
struct RankCapacity {
  int64_t pages = 0;          // N
  int64_t heads = 0;          // L_local * Hkv_local
  int64_t page_bytes = 0;
  int64_t row_state_bytes = 0;  // of a row's snapshot beside its pages
};

enum class SequenceState : uint8_t { waiting, running, swapped };

struct Sequence {
  Request request;
  std::vector<int32_t> tokens;    // prompt and generated, as far as known
  int64_t limit = INT64_MAX;      // tokens at most: max_tokens, the model's length
  int64_t computed = 0;           // tokens whose keys and values are in the cache, as of the last report
  int64_t scheduled = 0;          // the same and those in flight
  int32_t flights = 0;            // steps that hold it and whose reports are not in
  int32_t unread = 0;             // tokens that those steps sample
  int64_t scored = 0;             // prompt tokens scored (prompt_logprobs), the first one counting as scored
  uint64_t arrival = 0;           // order of arrival
  SequenceState state = SequenceState::waiting;
  int32_t row = -1;
  bool cancelled = false;         // never planned again: to be ended when nothing of it is in flight
  FinishReason ending = FinishReason::none;  // then with this reason
  std::string error;
  bool damaged = false;           // a pool ran dry under it: to be computed again when nothing of it is in flight
  bool set_up = false;            // its sampler was sent since it got its row
  int64_t preemptions = 0;
  std::vector<cache::RowUse> uses;  // per rank, as of its last report (swapped: of the swapped cache)
  std::vector<int64_t> reserved;    // per rank, pages that its tokens in flight may take

  int64_t remaining() const { return static_cast<int64_t>(tokens.size()) + unread - scheduled; }
  int64_t in_flight() const { return scheduled - computed; }
  int64_t generated() const { return static_cast<int64_t>(tokens.size() - request.prompt.size()); }
};

struct SchedulerLimits {
  int64_t max_batched_tokens = 512;
  int64_t max_logit_rows = 64;
  int64_t stages = 1;             // P: a step takes at most its share of the running decodes, so that every stage has work
  bool lookahead = false;         // a sequence may be planned while one step of it is in flight; its token is then known to the ranks alone
  int32_t page_slots = 16;        // S
  int64_t swap_bytes = 0;         // a rank's host memory for preempted caches
  std::vector<RankCapacity> ranks;
};

struct ScheduledItem {
  Sequence* sequence;
  int64_t begin;   // position of the first token
  int64_t tokens;
  bool sample;     // a token follows the last one
};

struct Schedule {
  std::vector<Sequence*> recomputes;   // gave their row back and wait again
  std::vector<Sequence*> swap_outs;
  std::vector<Sequence*> swap_ins;     // a row was assigned
  std::vector<ScheduledItem> items;    // waiting ones among them were assigned a row and became running
  std::vector<Sequence*> impossible;   // alone and still too large for the pool: the caller ends them with impossible_reason()
};

class Scheduler {
 public:
  Scheduler(SchedulerLimits limits, int64_t rows);

  // Plans one step and changes the sequences accordingly (all but their tokens); reserves its worst case in the ledger. `compression` is the
  // tokens per slot observed so far (>= 1), used to foresee a prompt's pages.
  Schedule plan(std::list<Sequence>& sequences, cache::Ledger& ledger, double compression);
  // The report of a step that held `item`: what its row uses now, on each rank.
  void report(const ScheduledItem& item, const std::vector<cache::RowUse>& uses, cache::Ledger& ledger);
  // Takes the row of a sequence with nothing in flight, whose cache is void; it waits again and computes its tokens anew.
  void restart(Sequence& sequence, cache::Ledger& ledger);
  // A finished sequence's row is free again. (Pages: the caller tells the ledger.)
  void give_row(int32_t row) { free_rows_.push_back(row); }

  std::string impossible_reason(const Sequence& sequence) const;
  int64_t swap_bytes_in_use(int rank) const { return swapped_bytes_[rank]; }
  void forget_swapped(const Sequence& sequence);  // its swapped cache is dropped

 private:
  struct Draft;
  void plan_decodes(Draft& draft);
  void plan_prompts(Draft& draft);
  bool make_room(Draft& draft, Sequence& sequence, int64_t tokens);
  void preempt(Draft& draft, Sequence& victim);
  bool admit(Draft& draft, Sequence& sequence);
  bool foreseen_to_fit(const Draft& draft, const Sequence& sequence) const;
  bool swap_has_room(const Sequence& sequence) const;
  int64_t snapshot_bytes(const Sequence& sequence, int rank) const;
  int64_t fitting_tokens(const Draft& draft, const Sequence& sequence, int64_t most) const;
  bool may_run(const Sequence& sequence) const;
  bool decodes_fit(const Draft& draft) const;
  int64_t more_pages(const Sequence& sequence, size_t rank, int64_t tokens) const;
  bool fits(const Draft& draft, const Sequence& sequence, int64_t tokens) const;
  void schedule(Draft& draft, Sequence& sequence, int64_t tokens);
  void to_swap(Draft& draft, Sequence& victim);
  int64_t logit_limit(const Draft& draft, const Sequence& sequence, int64_t tokens) const;

  SchedulerLimits limits_;
  std::vector<int32_t> free_rows_;
  std::vector<int64_t> swapped_bytes_;  // per rank
};

}  // namespace accrete::worker
