// The leader's outgoing side: final outputs with their slot counts, and the status.
#include <algorithm>
#include <chrono>

#include "worker/engine/leader.h"

namespace accrete::worker {
namespace {

constexpr double kStatusEvery = 0.1;  // seconds, while anything is open

double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

}  // namespace

// Closes a sequence that is not in flight. When it holds a row, its final output waits for the slot counts that come with the release.
void Leader::finish(Sequence& sequence, FinishReason reason, const std::string& error) {
  RequestOutput last;
  last.id = sequence.request.id;
  last.finish = reason;
  last.error = error;
  last.usage.prompt_tokens = static_cast<int64_t>(sequence.request.prompt.size());
  last.usage.completion_tokens = sequence.generated();
  last.usage.preemptions = sequence.preemptions;
  last.usage.head_slots.resize(head_slots_.size());
  last.usage.kv_slots = static_cast<double>(sequence.computed);  // until the ranks have counted
  drops_.push_back(sequence.request.id);
  if (sequence.state == SequenceState::swapped) scheduler_.forget_swapped(sequence);
  if (sequence.state == SequenceState::running) {
    for (int rank = 0; rank < ledger_.ranks(); ++rank) ledger_.released(rank, sequence.uses[rank].pages);
    releases_.push_back(sequence.row);
    released_ids_.push_back(sequence.request.id);
    scheduler_.give_row(sequence.row);
    finishing_[last.id] = std::move(last);
  } else {
    RequestOutput& out = output(last.id);
    last.tokens = std::move(out.tokens);
    last.prompt_tokens = std::move(out.prompt_tokens);
    out = std::move(last);
  }
  sequences_.erase(find(sequence.request.id));
}

void Leader::place_heads(const RankInfo& rank, const std::vector<int32_t>& counts, std::vector<int32_t>& whole) const {
  const int64_t heads = rank.kv_head_end - rank.kv_head_begin;
  for (int64_t i = 0; i < static_cast<int64_t>(counts.size()); ++i) {
    whole[(rank.layer_begin + i / heads) * setup_.model.kv_heads + rank.kv_head_begin + i % heads] = counts[i];
  }
}

void Leader::report_released(const Flight& flight, const std::vector<StepReport>& reports) {
  for (size_t i = 0; i < flight.released.size(); ++i) {
    if (flight.released[i] == 0) continue;  // preempted
    RequestOutput last = std::move(finishing_.at(flight.released[i]));
    finishing_.erase(flight.released[i]);
    RequestUsage& usage = last.usage;
    for (size_t rank = 0; rank < reports.size(); ++rank) place_heads(setup_.ranks[rank], reports[rank].released[i], usage.head_slots);
    double slots = 0.0;
    for (int32_t count : usage.head_slots) slots += count;
    const double cached = usage.kv_slots;
    usage.kv_slots = slots / static_cast<double>(usage.head_slots.size());
    if (usage.kv_slots > 0.0) usage.compression_ratio = cached / usage.kv_slots;
    closed_tokens_ += static_cast<uint64_t>(cached);
    closed_slots_ += static_cast<uint64_t>(usage.kv_slots);
    RequestOutput& out = output(last.id);
    last.tokens = std::move(out.tokens);
    last.prompt_tokens = std::move(out.prompt_tokens);
    out = std::move(last);
  }
}

RequestOutput& Leader::output(RequestId id) {
  for (RequestOutput& out : outputs_) {
    if (out.id == id) return out;
  }
  outputs_.emplace_back();
  outputs_.back().id = id;
  return outputs_.back();
}

void Leader::flush_outputs() {
  if (outputs_.empty()) return;
  setup_.sink(std::move(outputs_));
  outputs_.clear();
}

// Tokens per slot, over what is open and what has finished: 1 until something was seen.
double Leader::observed_compression() const {
  double tokens = static_cast<double>(closed_tokens_), slots = static_cast<double>(closed_slots_);
  const auto heads = static_cast<double>(setup_.model.layers * setup_.model.kv_heads);
  for (const Sequence& sequence : sequences_) {
    if (sequence.state != SequenceState::running) continue;
    double held = 0.0;
    for (const cache::RowUse& use : sequence.uses) held += static_cast<double>(use.slots);
    tokens += static_cast<double>(sequence.computed);
    slots += held / heads;
  }
  return slots > 0.0 ? tokens / slots : 1.0;
}

void Leader::update_status(bool force) {
  const double now = now_seconds();
  const bool nothing_open = sequences_.empty();
  if (!force && !nothing_open && now - last_status_ < kStatusEvery) return;
  last_status_ = now;
  LeaderStatus status;
  const auto heads = static_cast<double>(setup_.model.layers * setup_.model.kv_heads);
  double slots = 0.0;
  for (const Sequence& sequence : sequences_) {
    if (sequence.state != SequenceState::running) {
      ++status.waiting;
      continue;
    }
    ++status.running;
    status.cached_tokens += sequence.computed;
    for (const cache::RowUse& use : sequence.uses) slots += static_cast<double>(use.slots) / heads;
  }
  if (slots > 0.0) status.compression = std::max(1.0, static_cast<double>(status.cached_tokens) / slots);
  if (nothing_open) std::fill(head_slots_.begin(), head_slots_.end(), 0.0);
  status.head_slots = head_slots_;
  for (int rank = 0; rank < ledger_.ranks(); ++rank) {
    const RankInfo& info = setup_.ranks[rank];
    const int64_t free = ledger_.free_pages(rank);
    status.pages_free.push_back(free);
    const int64_t in_use = (info.pages - free) * info.page_bytes;
    const int64_t slot_bytes = info.page_bytes / setup_.options.block_size;
    status.kv_bytes_in_use += in_use;
    status.kv_bytes_saved += std::max<int64_t>(0, status.cached_tokens * info.heads() * slot_bytes - in_use);
  }
  status.counters = counters_;
  const std::lock_guard lock(mutex_);
  status_ = std::move(status);
}

}  // namespace accrete::worker
