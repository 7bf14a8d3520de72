#include "worker/engine/scheduler.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>

#include "kernels/check.h"

namespace accrete::worker {
namespace {

constexpr int kPartialPrompts = 4;  // prompts under way at once when they fill a step's budget

bool before(const Sequence* a, const Sequence* b) {
  return std::tuple(a->request.priority, a->arrival) < std::tuple(b->request.priority, b->arrival);
}

bool is_decode(const Sequence& s) { return s.remaining() == 1 && s.scheduled > 0; }
bool wants_scores(const Sequence& s) {
  return s.request.prompt_logprobs >= 0 && s.scored < static_cast<int64_t>(s.request.prompt.size());
}

}  // namespace

// A plan being made. `order`: the sequences that may run now, best first.
struct Scheduler::Draft {
  Schedule schedule;
  cache::Ledger& ledger;
  double compression;
  std::vector<Sequence*> order;
  int64_t running = 0;          // all of them, also in flight
  int64_t tokens_left = 0;
  int64_t logit_rows_left = 0;
  bool preempted = false;
  bool ahead = false;           // of a step in flight that may hold the same sequences
  std::vector<int64_t> growth;  // per rank: pages that two more tokens of all running sequences may take

  bool holds(const Sequence* sequence) const {
    return std::any_of(schedule.items.begin(), schedule.items.end(), [&](const ScheduledItem& i) { return i.sequence == sequence; });
  }
};

Scheduler::Scheduler(SchedulerLimits limits, int64_t rows) : limits_(std::move(limits)), swapped_bytes_(limits_.ranks.size()) {
  for (int64_t row = rows - 1; row >= 0; --row) free_rows_.push_back(static_cast<int32_t>(row));
}

bool Scheduler::may_run(const Sequence& s) const {
  if (s.cancelled) return false;
  if (s.flights == 0) return true;
  const bool will_end = s.unread > 0 && static_cast<int64_t>(s.tokens.size()) + s.unread >= s.limit;
  return limits_.lookahead && s.flights == 1 && !wants_scores(s) && !will_end && s.remaining() > 0;
}

Schedule Scheduler::plan(std::list<Sequence>& sequences, cache::Ledger& ledger, double compression) {
  Draft draft{.schedule = {}, .ledger = ledger, .compression = std::max(1.0, compression), .order = {}, .growth = {}};
  draft.tokens_left = limits_.max_batched_tokens;
  draft.logit_rows_left = limits_.max_logit_rows;
  for (Sequence& sequence : sequences) {
    if (sequence.state == SequenceState::running) ++draft.running;
    if (limits_.lookahead && sequence.flights > 0) draft.ahead = true;
    if (may_run(sequence)) draft.order.push_back(&sequence);
  }
  draft.growth.assign(limits_.ranks.size(), 0);
  for (const Sequence& sequence : sequences) {
    for (size_t rank = 0; rank < limits_.ranks.size() && sequence.state == SequenceState::running; ++rank) draft.growth[rank] += std::max<int64_t>(0, more_pages(sequence, rank, 2));
  }
  std::sort(draft.order.begin(), draft.order.end(), before);
  if (draft.ahead && !decodes_fit(draft)) return std::move(draft.schedule);
  plan_decodes(draft);
  plan_prompts(draft);
  return std::move(draft.schedule);
}

// Pages to be reserved for `tokens` more, beside those in flight.
int64_t Scheduler::more_pages(const Sequence& sequence, size_t rank, int64_t tokens) const {
  const int64_t worst = cache::worst_case_pages(sequence.uses[rank], limits_.ranks[rank].heads, sequence.in_flight() + tokens, limits_.page_slots);
  return worst - sequence.reserved[rank];
}

bool Scheduler::fits(const Draft& draft, const Sequence& sequence, int64_t tokens) const {
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) {
    if (more_pages(sequence, rank, tokens) > draft.ledger.surely_free(static_cast<int>(rank))) return false;
  }
  return true;
}

bool Scheduler::decodes_fit(const Draft& draft) const {
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) {
    int64_t pages = 0;
    for (const Sequence* s : draft.order) pages += s->state == SequenceState::running && is_decode(*s) ? more_pages(*s, rank, 1) : 0;
    if (pages > draft.ledger.surely_free(static_cast<int>(rank))) return false;
  }
  return true;
}

void Scheduler::schedule(Draft& draft, Sequence& sequence, int64_t tokens) {
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) {
    const int64_t pages = more_pages(sequence, rank, tokens);
    draft.ledger.reserve(static_cast<int>(rank), pages);
    sequence.reserved[rank] += pages;
  }
  if (wants_scores(sequence)) {
    const int64_t prompt = static_cast<int64_t>(sequence.request.prompt.size());
    draft.logit_rows_left -=
        std::max<int64_t>(0, std::min(sequence.scheduled + tokens + 1, prompt) - std::max(sequence.scored, sequence.scheduled + 1));
  }
  const bool sample = tokens == sequence.remaining() && sequence.request.max_tokens > 0;
  if (tokens == sequence.remaining()) --draft.logit_rows_left;
  draft.schedule.items.push_back({&sequence, sequence.scheduled, tokens, sample});
  draft.tokens_left -= tokens;
  sequence.scheduled += tokens;
  ++sequence.flights;
  sequence.unread += sample ? 1 : 0;
}

// What tokens still in flight may take is bounded twice: from what the row uses now, and by what was reserved and not taken.
void Scheduler::report(const ScheduledItem& item, const std::vector<cache::RowUse>& uses, cache::Ledger& ledger) {
  Sequence& sequence = *item.sequence;
  sequence.computed += item.tokens;
  sequence.unread -= item.sample ? 1 : 0;
  --sequence.flights;
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) {
    const int64_t taken = uses[rank].pages - sequence.uses[rank].pages, reserved = sequence.reserved[rank];
    sequence.uses[rank] = uses[rank];
    const int64_t worst = cache::worst_case_pages(uses[rank], limits_.ranks[rank].heads, sequence.in_flight(), limits_.page_slots);
    sequence.reserved[rank] = std::min(worst, reserved - taken);
    ledger.settle(static_cast<int>(rank), taken, reserved - sequence.reserved[rank]);
  }
}

void Scheduler::plan_decodes(Draft& draft) {
  int64_t decodes = 0;
  for (const Sequence* s : draft.order) decodes += s->state == SequenceState::running && is_decode(*s) ? 1 : 0;
  int64_t share = limits_.stages == 1 ? decodes : (draft.running + limits_.stages - 1) / limits_.stages;
  for (Sequence* sequence : draft.order) {
    if (share == 0 || draft.tokens_left == 0 || draft.logit_rows_left == 0) return;
    if (sequence->state != SequenceState::running || !is_decode(*sequence)) continue;
    if (!make_room(draft, *sequence, 1)) continue;
    schedule(draft, *sequence, 1);
    --share;
  }
}

// Preempts from the end of the order until `tokens` more tokens of the sequence fit. False when it had to give way itself, or when steps
// in flight may yet free what it needs.
bool Scheduler::make_room(Draft& draft, Sequence& sequence, int64_t tokens) {
  while (!fits(draft, sequence, tokens)) {
    Sequence* victim = nullptr;
    for (Sequence* candidate : draft.order) {
      if (candidate->state == SequenceState::running && candidate->flights == 0) victim = candidate;
    }
    CHECK(victim != nullptr);  // the sequence itself is a candidate
    if (victim == &sequence) {
      if (draft.running > 1) {
        const bool others_in_flight = draft.running > static_cast<int64_t>(draft.schedule.items.size()) + 1;
        if (!others_in_flight && draft.schedule.items.empty()) preempt(draft, sequence);
        else if (!draft.schedule.items.empty()) preempt(draft, sequence);
        return false;
      }
      draft.schedule.impossible.push_back(&sequence);
      sequence.cancelled = true;
      return false;
    }
    preempt(draft, *victim);
  }
  return true;
}

int64_t Scheduler::snapshot_bytes(const Sequence& sequence, int rank) const {
  return sequence.uses[rank].pages * limits_.ranks[rank].page_bytes + limits_.ranks[rank].row_state_bytes;
}

bool Scheduler::swap_has_room(const Sequence& sequence) const {
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) {
    if (swapped_bytes_[rank] + snapshot_bytes(sequence, static_cast<int>(rank)) > limits_.swap_bytes) return false;
  }
  return true;
}

void Scheduler::to_swap(Draft& draft, Sequence& victim) {
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) swapped_bytes_[rank] += snapshot_bytes(victim, static_cast<int>(rank));
  victim.state = SequenceState::swapped;
  draft.schedule.swap_outs.push_back(&victim);
}

void Scheduler::forget_swapped(const Sequence& sequence) {
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) swapped_bytes_[rank] -= snapshot_bytes(sequence, static_cast<int>(rank));
}

void Scheduler::restart(Sequence& sequence, cache::Ledger& ledger) {
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) {
    ledger.released(static_cast<int>(rank), sequence.uses[rank].pages);
    sequence.uses[rank] = {.pages = 0, .slots = 0, .full_heads = static_cast<int32_t>(limits_.ranks[rank].heads)};
  }
  free_rows_.push_back(sequence.row);
  sequence.state = SequenceState::waiting;
  sequence.computed = sequence.scheduled = 0;
  sequence.set_up = sequence.damaged = false;
  ++sequence.preemptions;
}

void Scheduler::preempt(Draft& draft, Sequence& victim) {
  --draft.running;
  draft.preempted = true;
  if (victim.computed == 0 || !swap_has_room(victim)) {
    restart(victim, draft.ledger);
    draft.schedule.recomputes.push_back(&victim);
    return;
  }
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) draft.ledger.released(static_cast<int>(rank), victim.uses[rank].pages);
  free_rows_.push_back(victim.row);
  victim.set_up = false;
  ++victim.preemptions;
  to_swap(draft, victim);  // keeps row for the plan, and uses for the way back
}

// Would the sequence, whole, fit beside what runs, at the compression seen so far, with room for two worst tokens of the others?
bool Scheduler::foreseen_to_fit(const Draft& draft, const Sequence& sequence) const {
  const auto slots = static_cast<int64_t>(static_cast<double>(sequence.tokens.size()) / draft.compression) + 1;
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) {
    const int64_t heads = limits_.ranks[rank].heads;
    const int64_t wanted = heads * ((slots + limits_.page_slots - 1) / limits_.page_slots);
    const int64_t reserve = draft.growth[rank] + heads;
    const int64_t have = sequence.state == SequenceState::swapped ? sequence.uses[rank].pages : 0;
    if (std::max(wanted, have) + reserve > draft.ledger.surely_free(static_cast<int>(rank))) return false;
  }
  return true;
}

// A waiting or swapped sequence gets a row, and a swapped one its cache back.
bool Scheduler::admit(Draft& draft, Sequence& sequence) {
  if (free_rows_.empty() || draft.preempted) return false;
  if (draft.running > 0 && !foreseen_to_fit(draft, sequence)) return false;
  if (sequence.state == SequenceState::swapped) {
    for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) {
      if (sequence.uses[rank].pages > draft.ledger.surely_free(static_cast<int>(rank))) return false;
    }
    forget_swapped(sequence);
    for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) draft.ledger.took(static_cast<int>(rank), sequence.uses[rank].pages);
    draft.schedule.swap_ins.push_back(&sequence);
  }
  sequence.row = free_rows_.back();
  free_rows_.pop_back();
  sequence.state = SequenceState::running;
  ++draft.running;
  return true;
}

// At most `most` tokens, fewer when their worst case would not fit.
int64_t Scheduler::fitting_tokens(const Draft& draft, const Sequence& sequence, int64_t most) const {
  int64_t low = 0, high = most;
  while (low < high) {
    const int64_t middle = (low + high + 1) / 2;
    if (fits(draft, sequence, middle)) low = middle;
    else high = middle - 1;
  }
  return low;
}

// Prompt tokens to be scored take a row of logits each.
int64_t Scheduler::logit_limit(const Draft& draft, const Sequence& sequence, int64_t tokens) const {
  if (draft.logit_rows_left <= 0) return 0;
  if (!wants_scores(sequence)) return tokens;
  const int64_t unscored = std::max<int64_t>(0, sequence.scored - sequence.scheduled - 1);  // recomputed: scored before
  return std::min(tokens, unscored + draft.logit_rows_left - 1);
}

void Scheduler::plan_prompts(Draft& draft) {
  std::vector<Sequence*> prompts;
  int64_t wanted = 0;
  bool door_closed = false;  // first come, first served: behind one that cannot come in, nobody comes in
  for (Sequence* sequence : draft.order) {
    if (draft.tokens_left == 0 || (static_cast<int>(prompts.size()) >= kPartialPrompts && wanted >= draft.tokens_left)) break;
    if (static_cast<int64_t>(prompts.size()) >= draft.logit_rows_left) break;
    if (draft.holds(sequence) || sequence->cancelled) continue;
    if (sequence->state == SequenceState::running) {
      if (is_decode(*sequence)) continue;
    } else {
      door_closed = door_closed || !admit(draft, *sequence);
      if (door_closed) continue;
    }
    prompts.push_back(sequence);
    wanted += sequence->remaining();
  }
  // The most urgent, of these the shortest first, as much as there is, so that the prompts of a burst are answered one after another. Beside them
  // the first in order has an even share for certain: shorter ones that keep coming do not stop it.
  std::vector<Sequence*> shares = prompts;
  std::stable_sort(shares.begin(), shares.end(), [](const Sequence* a, const Sequence* b) {
    return std::tuple(a->request.priority, a->remaining()) < std::tuple(b->request.priority, b->remaining());
  });
  int64_t reserved = 0;  // of what is left, for the first in order
  if (!prompts.empty()) reserved = std::min(prompts[0]->remaining(), draft.tokens_left / static_cast<int64_t>(prompts.size()));
  for (size_t i = 0; i < shares.size(); ++i) {
    Sequence& sequence = *shares[i];
    if (&sequence == prompts[0]) reserved = 0;
    const int64_t most = logit_limit(draft, sequence, std::min(sequence.remaining(), draft.tokens_left - reserved));
    const int64_t tokens = fitting_tokens(draft, sequence, most);
    if (tokens > 0) {
      schedule(draft, sequence, tokens);
    } else if (draft.ahead) {
      continue;  // what is in flight may yet leave it room
    } else if (most > 0 && draft.running == 1 && draft.schedule.items.empty()) {
      draft.schedule.impossible.push_back(&sequence);
      sequence.cancelled = true;
    } else if (most > 0 && draft.schedule.items.empty() && i + 1 == shares.size()) {
      // Only prompts run and none can go on: the last in order gives way to the first.
      Sequence* last = *std::max_element(prompts.begin(), prompts.end(), before);
      preempt(draft, *last);
    }
  }
}

std::string Scheduler::impossible_reason(const Sequence& sequence) const {
  for (size_t rank = 0; rank < limits_.ranks.size(); ++rank) {
    const RankCapacity& capacity = limits_.ranks[rank];
    const int64_t next = cache::worst_case_pages(sequence.uses[rank], capacity.heads, 1, limits_.page_slots);
    if (sequence.uses[rank].pages + next <= capacity.pages) continue;
    return fmt::format("the request needs {} cache pages after {} tokens, rank {} has {} in all (--kv-cache-memory-bytes)",
                       sequence.uses[rank].pages + next, sequence.computed, rank, capacity.pages);
  }
  return "the request does not fit the cache (--kv-cache-memory-bytes)";
}

}  // namespace accrete::worker
