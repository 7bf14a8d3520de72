#include "worker/engine/leader.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>

#include "kernels/check.h"
#include "parallel/polite_wait.h"
#include "worker/engine/settings.h"

namespace accrete::worker {
namespace {

double now_seconds() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

int steps_in_flight_of(const Leader::Setup& setup) {
  int64_t weight_bytes = 0;
  for (const RankInfo& rank : setup.ranks) weight_bytes = std::max(weight_bytes, rank.weight_bytes);
  return steps_in_flight(setup.options, weight_bytes);
}

SchedulerLimits limits_of(const Leader::Setup& setup) {
  SchedulerLimits limits;
  limits.max_batched_tokens = setup.options.max_num_batched_tokens;
  limits.max_logit_rows = max_logit_rows(setup.options);
  limits.lookahead = looks_ahead(setup.options);
  limits.stages = limits.lookahead ? 1 : steps_in_flight_of(setup);
  limits.page_slots = setup.options.block_size;
  limits.swap_bytes = static_cast<int64_t>(setup.options.swap_space_gib * static_cast<double>(int64_t{1} << 30));
  for (const RankInfo& rank : setup.ranks) limits.ranks.push_back({rank.pages, rank.heads(), rank.page_bytes, rank.row_state_bytes});
  return limits;
}

cache::Ledger ledger_of(const Leader::Setup& setup) {
  std::vector<int64_t> pages;
  for (const RankInfo& rank : setup.ranks) pages.push_back(rank.pages);
  return cache::Ledger(std::move(pages));
}

}  // namespace

Leader::Leader(Setup setup, RankExecutor& executor, parallel::Communicator& replica)
    : setup_(std::move(setup)),
      executor_(executor),
      replica_(replica),
      scheduler_(limits_of(setup_), setup_.options.max_num_seqs),
      ledger_(ledger_of(setup_)),
      steps_in_flight_(steps_in_flight_of(setup_)),
      head_slots_(setup_.model.layers * setup_.model.kv_heads) {
  counters_.iteration_tokens.resize(std::size(kIterationTokenBuckets) + 1);
  update_status(true);
}

void Leader::submit(Request request) {
  {
    const std::lock_guard lock(mutex_);
    commands_.emplace_back(std::move(request));
    idle_ = false;
  }
  wake_.notify_one();
}

void Leader::cancel(RequestId id) {
  {
    const std::lock_guard lock(mutex_);
    commands_.emplace_back(id);
  }
  wake_.notify_one();
}

void Leader::stop() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
}

bool Leader::idle() const {
  const std::lock_guard lock(mutex_);
  return idle_;
}

LeaderStatus Leader::status() const {
  const std::lock_guard lock(mutex_);
  return status_;
}

// Takes what came in, waiting for it when nothing is open. False: stop.
bool Leader::take_commands() {
  std::deque<Command> taken;
  {
    std::unique_lock lock(mutex_);
    const bool nothing_open = sequences_.empty() && flights_.empty() && releases_.empty() && drops_.empty();
    if (nothing_open && commands_.empty()) {
      idle_ = true;
      wake_.wait(lock, [&] { return stop_ || !commands_.empty(); });
    }
    if (stop_) return false;
    idle_ = false;
    taken.swap(commands_);
  }
  for (Command& command : taken) {
    if (auto* request = std::get_if<Request>(&command)) open(std::move(*request));
    else cancel_now(std::get<RequestId>(command));
  }
  return true;
}

void Leader::run() {
  while (take_commands()) {
    while (static_cast<int>(flights_.size()) < steps_in_flight_ && launch_step()) {
    }
    if (!flights_.empty()) finish_flight();
    flush_outputs();
    update_status(false);
  }
  while (!flights_.empty()) finish_flight();
  flush_outputs();
  StepPlan last;
  last.stop = true;
  const std::vector<std::byte> bytes = to_bytes(last);
  for (int rank = 1; rank < replica_.size(); ++rank) replica_.send(bytes, rank, kPlanTag);
}

std::list<Sequence>::iterator Leader::find(RequestId id) {
  return std::find_if(sequences_.begin(), sequences_.end(), [&](const Sequence& s) { return s.request.id == id; });
}

void Leader::open(Request&& request) {
  Sequence sequence;
  sequence.tokens = request.prompt;
  sequence.tokens.insert(sequence.tokens.end(), request.generated.begin(), request.generated.end());
  sequence.scored = 1;
  sequence.arrival = next_arrival_++;
  for (const RankInfo& rank : setup_.ranks) {
    sequence.uses.push_back({.pages = 0, .slots = 0, .full_heads = static_cast<int32_t>(rank.heads())});
  }
  sequence.reserved.resize(setup_.ranks.size());
  sequence.limit = std::min(static_cast<int64_t>(request.prompt.size()) + request.max_tokens, setup_.model.max_model_len);
  sequence.request = std::move(request);
  sequences_.push_back(std::move(sequence));
  Sequence& opened = sequences_.back();
  const auto length = static_cast<int64_t>(opened.tokens.size());
  const auto in_vocab = [&](int32_t token) { return token >= 0 && token < setup_.model.vocab; };
  if (opened.request.prompt.empty()) return finish(opened, FinishReason::error, "the prompt is empty");
  if (length > setup_.model.max_model_len) {
    return finish(opened, FinishReason::error,
                  fmt::format("the prompt has {} tokens, max_model_len is {}", length, setup_.model.max_model_len));
  }
  if (!std::all_of(opened.tokens.begin(), opened.tokens.end(), in_vocab)) {
    return finish(opened, FinishReason::error, fmt::format("a prompt token is outside the vocabulary of {}", setup_.model.vocab));
  }
  const bool only_scores = opened.request.max_tokens <= 0 && opened.request.prompt_logprobs >= 0 && length > 1;
  if (!only_scores && (opened.generated() >= opened.request.max_tokens || length == setup_.model.max_model_len)) {
    return finish(opened, FinishReason::length);
  }
  counters_.prompt_tokens += opened.request.prompt.size();
}

void Leader::cancel_now(RequestId id) {
  const auto found = find(id);
  if (found == sequences_.end()) return;  // finished meanwhile
  end_with(*found, FinishReason::abort);
  if (found->flights == 0) finish(*found, FinishReason::abort);
}

// Plans a step and sets it going on every rank. False: nothing to do.
bool Leader::launch_step() {
  Schedule schedule = scheduler_.plan(sequences_, ledger_, observed_compression());
  Flight flight;
  flight.plan.step = next_step_;
  add_moves(schedule, flight);
  add_items(schedule, flight);
  for (Sequence* impossible : schedule.impossible) finish(*impossible, FinishReason::error, scheduler_.impossible_reason(*impossible));
  const double now = now_seconds();
  if (!sequences_.empty() && now - last_heads_ > 1.0) {
    flight.plan.want_heads = true;
    last_heads_ = now;
  }
  if (flight.plan.empty()) return false;
  ++next_step_;
  if (replica_.size() > 1) {
    const std::vector<std::byte> bytes = to_bytes(flight.plan);
    for (int rank = 1; rank < replica_.size(); ++rank) replica_.send(bytes, rank, kPlanTag);
    // Whoever enqueues on a GPU may be held up, by a full queue or by NCCL, until the other ranks have enqueued the same.
    if (on_gpu(setup_.options)) replica_.flush([&] { executor_.check(); });
  }
  executor_.begin(flight.plan);
  flights_.push_back(std::move(flight));
  return true;
}

void Leader::add_moves(Schedule& schedule, Flight& flight) {
  StepPlan& plan = flight.plan;
  plan.releases = std::move(releases_);
  flight.released = std::move(released_ids_);
  plan.drops = std::move(drops_);
  releases_.clear();
  released_ids_.clear();
  drops_.clear();
  for (Sequence* sequence : schedule.recomputes) {
    plan.releases.push_back(sequence->row);
    flight.released.push_back(0);
  }
  for (Sequence* sequence : schedule.swap_outs) plan.swap_outs.push_back({sequence->request.id, sequence->row});
  for (Sequence* sequence : schedule.swap_ins) plan.swap_ins.push_back({sequence->request.id, sequence->row});
  counters_.preemptions += schedule.recomputes.size() + schedule.swap_outs.size();
  counters_.swapped_out += schedule.swap_outs.size();
  counters_.swapped_in += schedule.swap_ins.size();
}

SamplerSetup Leader::setup_of(const Sequence& sequence) const {
  const Request& request = sequence.request;
  SamplerSetup setup{request.sampling, static_cast<int64_t>(request.prompt.size()), request.min_tokens, request.stop_token_ids, {}};
  if (!request.ignore_eos) setup.ends.insert(setup.ends.end(), setup_.model.eos_token_ids.begin(), setup_.model.eos_token_ids.end());
  if (request.sampling.penalised()) setup.tokens = sequence.tokens;
  return setup;
}

PlanItem Leader::make_item(const ScheduledItem& scheduled) {
  Sequence& sequence = *scheduled.sequence;
  const Request& request = sequence.request;
  const int64_t end = scheduled.begin + scheduled.tokens, known = std::min(end, static_cast<int64_t>(sequence.tokens.size()));
  PlanItem item;
  item.id = request.id;
  item.row = sequence.row;
  item.decision_key = request.decision_key.value_or(request.id);
  item.begin = scheduled.begin;
  item.tokens.assign(sequence.tokens.begin() + scheduled.begin, sequence.tokens.begin() + known);
  item.tokens.resize(scheduled.tokens, kUnreadToken);
  item.sample = scheduled.sample;
  item.pretend = request.pretend_prompt;
  const auto prompt = static_cast<int64_t>(request.prompt.size());
  if (request.prompt_logprobs >= 0 && sequence.scored < std::min(end + 1, prompt)) {
    // The token at position p is scored by the logits of p - 1.
    item.score_from = static_cast<int32_t>(std::max<int64_t>(sequence.scored - 1 - scheduled.begin, 0));
    item.score_top = request.prompt_logprobs;
    if (end < prompt) item.next_token = sequence.tokens[end];
  }
  if (!sequence.set_up) item.setup = setup_of(sequence);
  sequence.set_up = true;
  return item;
}

void Leader::add_items(const Schedule& schedule, Flight& flight) {
  for (const ScheduledItem& scheduled : schedule.items) flight.plan.items.push_back(make_item(scheduled));
  flight.items = schedule.items;
}

std::vector<StepReport> Leader::collect(const Flight& flight) {
  std::vector<StepReport> reports;
  reports.push_back(executor_.finish());
  for (int rank = 1; rank < replica_.size(); ++rank) reports.push_back(report_from(replica_.recv(rank, kReportTag)));
  for (size_t rank = 0; rank < reports.size(); ++rank) CHECK(reports[rank].step == flight.plan.step, rank, reports[rank].step, flight.plan.step);
  return reports;
}

// The oldest step in flight: waits for its reports and applies them.
void Leader::finish_flight() {
  Flight flight = std::move(flights_.front());
  flights_.pop_front();
  std::vector<StepReport> reports = collect(flight);
  ++counters_.iterations;
  const auto* bucket = std::lower_bound(std::begin(kIterationTokenBuckets), std::end(kIterationTokenBuckets), flight.plan.tokens());
  ++counters_.iteration_tokens[bucket - std::begin(kIterationTokenBuckets)];
  counters_.device_seconds += reports[0].device_seconds;
  account(flight, reports);
  report_released(flight, reports);
  const bool step_is_void = std::any_of(reports.begin(), reports.end(), [](const StepReport& report) { return report.exhausted; });
  if (step_is_void) ++counters_.exhausted;
  // The sampling rank: last stage, shard 0.
  StepReport& sampler = reports[(setup_.options.topology.pipeline - 1) * setup_.options.topology.tensor];
  for (size_t i = 0; i < flight.items.size(); ++i) apply(flight.items[i], std::move(sampler.results[i]), step_is_void);
}

void Leader::account(const Flight& flight, const std::vector<StepReport>& reports) {
  std::vector<cache::RowUse> uses(reports.size());
  for (size_t i = 0; i < flight.items.size(); ++i) {
    for (size_t rank = 0; rank < reports.size(); ++rank) uses[rank] = reports[rank].uses[i];
    scheduler_.report(flight.items[i], uses, ledger_);
  }
  if (!flight.plan.want_heads) return;
  for (size_t rank = 0; rank < reports.size(); ++rank) {
    const RankInfo& info = setup_.ranks[rank];
    const int64_t heads = info.kv_head_end - info.kv_head_begin;
    for (int64_t i = 0; i < static_cast<int64_t>(reports[rank].head_slots.size()); ++i) {
      head_slots_[(info.layer_begin + i / heads) * setup_.model.kv_heads + info.kv_head_begin + i % heads] = reports[rank].head_slots[i];
    }
  }
}

void Leader::apply(const ScheduledItem& item, ItemResult&& result, bool step_is_void) {
  Sequence& sequence = *item.sequence;
  sequence.damaged = sequence.damaged || step_is_void;
  if (sequence.ending == FinishReason::none && !sequence.damaged) {
    if (!result.scored.empty()) {
      sequence.scored += static_cast<int64_t>(result.scored.size());
      RequestOutput& out = output(sequence.request.id);
      std::move(result.scored.begin(), result.scored.end(), std::back_inserter(out.prompt_tokens));
    }
    if (result.sampled) take_token(sequence, std::move(*result.sampled));
    else if (sequence.remaining() == 0) end_with(sequence, FinishReason::length);  // prompt_logprobs alone
  }
  settle(sequence);
}

// What was put off until nothing of the sequence is in flight.
void Leader::settle(Sequence& sequence) {
  if (sequence.flights > 0) return;
  if (sequence.ending != FinishReason::none) return finish(sequence, sequence.ending, sequence.error);
  if (!sequence.damaged) return;
  releases_.push_back(sequence.row);
  released_ids_.push_back(0);
  scheduler_.restart(sequence, ledger_);
  ++counters_.preemptions;
}

void Leader::end_with(Sequence& sequence, FinishReason reason, const std::string& error) {
  sequence.cancelled = true;
  sequence.ending = reason;
  sequence.error = error;
}

FinishReason Leader::reason_to_finish(const Sequence& sequence, int32_t token) const {
  const Request& request = sequence.request;
  const auto among = [&](const std::vector<int32_t>& ids) { return std::find(ids.begin(), ids.end(), token) != ids.end(); };
  if (sequence.generated() >= request.min_tokens) {
    if (!request.ignore_eos && among(setup_.model.eos_token_ids)) return FinishReason::stop;
    if (among(request.stop_token_ids)) return FinishReason::stop;
  }
  if (sequence.generated() >= request.max_tokens) return FinishReason::length;
  if (static_cast<int64_t>(sequence.tokens.size()) >= setup_.model.max_model_len) return FinishReason::length;
  return FinishReason::none;
}

void Leader::take_token(Sequence& sequence, TokenOut&& token) {
  if (token.id < 0) return end_with(sequence, FinishReason::error, "the model's logits are not finite (NaN or infinity)");
  const int32_t id = token.id;
  sequence.tokens.push_back(id);
  ++counters_.generation_tokens;
  output(sequence.request.id).tokens.push_back(std::move(token));
  const FinishReason reason = reason_to_finish(sequence, id);
  if (reason != FinishReason::none) end_with(sequence, reason);
}

void follow(RankExecutor& executor, parallel::Communicator& replica) {
  parallel::PoliteWait wait(parallel::Patience{std::chrono::microseconds(500)});
  while (true) {
    if (executor.in_flight() > 0 && executor.done()) {
      replica.send(to_bytes(executor.finish()), 0, kReportTag);
    } else if (executor.in_flight() == 0 || replica.poll(0, kPlanTag)) {
      StepPlan plan = plan_from(replica.recv(0, kPlanTag));
      if (plan.stop) return;
      executor.begin(std::move(plan));
    } else {
      wait.pause();
      continue;
    }
    wait = parallel::PoliteWait(parallel::Patience{std::chrono::microseconds(500)});
  }
}

}  // namespace accrete::worker
