// The scheduler against a simulated replica: caches that append or accumulate at random, several ranks, steps in flight.
#include "worker/engine/scheduler.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <set>

namespace accrete::worker {
namespace {

constexpr int32_t kPageSlots = 4;

struct Simulation {
  struct Step {
    uint64_t number;
    std::vector<ScheduledItem> items;
    std::vector<int64_t> worst;
  };

  Simulation(SchedulerLimits l, int64_t rows, double accumulate_rate, unsigned seed)
      : limits(std::move(l)), scheduler(limits, rows), ledger(ranks(), limits.page_slots), accumulate(accumulate_rate), random(seed) {}

  std::vector<cache::Ledger::Rank> ranks() const {
    std::vector<cache::Ledger::Rank> list;
    for (const RankCapacity& rank : limits.ranks) list.push_back({rank.pages, rank.heads});
    return list;
  }

  Sequence& add(int64_t prompt, int64_t max_tokens, int32_t priority = 0) {
    Sequence sequence;
    sequence.request.id = ++last_id;
    sequence.request.prompt.assign(prompt, 1);
    sequence.request.max_tokens = max_tokens;
    sequence.request.priority = priority;
    sequence.tokens = sequence.request.prompt;
    sequence.arrival = last_id;
    for (const RankCapacity& rank : limits.ranks) sequence.uses.push_back({.pages = 0, .slots = 0, .full_heads = static_cast<int32_t>(rank.heads)});
    sequences.push_back(std::move(sequence));
    return sequences.back();
  }

  // Plans a step and checks what must hold of any plan. False: nothing planned.
  bool plan() {
    Schedule schedule = scheduler.plan(sequences, ledger, 1.0);
    int64_t tokens = 0;
    std::set<int32_t> rows;
    for (const ScheduledItem& item : schedule.items) {
      EXPECT_EQ(item.sequence->state, SequenceState::running);
      EXPECT_FALSE(item.sequence->in_flight);
      EXPECT_GE(item.sequence->row, 0);
      EXPECT_GT(item.tokens, 0);
      EXPECT_LE(item.tokens, item.sequence->remaining());
      tokens += item.tokens;
    }
    EXPECT_LE(tokens, limits.max_batched_tokens);
    for (const Sequence& sequence : sequences) {
      if (sequence.state == SequenceState::running) {
        EXPECT_TRUE(rows.insert(sequence.row).second) << "row " << sequence.row << " is used twice";
      }
    }
    for (size_t rank = 0; rank < limits.ranks.size(); ++rank) EXPECT_LE(schedule.worst_case[rank], ledger.surely_free(static_cast<int>(rank)));
    for (Sequence* sequence : schedule.impossible) finish(*sequence, true);
    if (schedule.items.empty()) return !schedule.recomputes.empty() || !schedule.swap_outs.empty() || !schedule.impossible.empty();
    ledger.begin_step(++last_step, schedule.worst_case);
    for (const ScheduledItem& item : schedule.items) item.sequence->in_flight = true;
    steps.push_back({last_step, schedule.items, schedule.worst_case});
    return true;
  }

  // The oldest step ends: every head of every rank appends or accumulates each token.
  void complete() {
    const Step step = steps.front();
    steps.pop_front();
    std::vector<int64_t> taken(limits.ranks.size(), 0);
    for (const ScheduledItem& item : step.items) {
      for (size_t rank = 0; rank < limits.ranks.size(); ++rank) taken[rank] += run(*item.sequence, rank, item.tokens);
    }
    for (size_t rank = 0; rank < taken.size(); ++rank) EXPECT_LE(taken[rank], step.worst[rank]);
    ledger.end_step(step.number, taken);
    for (const ScheduledItem& item : step.items) {
      Sequence& sequence = *item.sequence;
      sequence.in_flight = false;
      sequence.computed += item.tokens;
      if (sequence.remaining() > 0) continue;
      sequence.tokens.push_back(2);
      if (sequence.generated() >= sequence.request.max_tokens) finish(sequence, false);
    }
  }

  int64_t run(Sequence& sequence, size_t rank, int64_t tokens) {
    auto& slots = heads[{sequence.request.id, rank}];
    if (sequence.computed == 0) slots.assign(limits.ranks[rank].heads, 0);
    std::bernoulli_distribution accumulates(accumulate);
    const int64_t before = sequence.uses[rank].pages;
    cache::RowUse use;
    for (int64_t& count : slots) {
      for (int64_t t = 0; t < tokens; ++t) count += count == 0 || !accumulates(random) ? 1 : 0;
      use.pages += (count + kPageSlots - 1) / kPageSlots;
      use.slots += count;
      use.full_heads += count % kPageSlots == 0 ? 1 : 0;
    }
    sequence.uses[rank] = use;
    return use.pages - before;
  }

  void finish(Sequence& sequence, bool impossible) {
    (impossible ? failed : done).push_back(sequence.request.id);
    if (sequence.state == SequenceState::running) {
      for (size_t rank = 0; rank < limits.ranks.size(); ++rank) ledger.released(static_cast<int>(rank), sequence.uses[rank].pages);
      scheduler.give_row(sequence.row);
    }
    if (sequence.state == SequenceState::swapped) scheduler.forget_swapped(sequence);
    sequences.remove_if([&](const Sequence& s) { return &s == &sequence; });
  }

  // Until nothing is open; false when it stops making progress.
  bool drain(int most_steps) {
    for (int i = 0; i < most_steps && !(sequences.empty() && steps.empty()); ++i) {
      bool progress = false;
      while (static_cast<int64_t>(steps.size()) < limits.stages && plan()) progress = true;
      if (!steps.empty()) complete(), progress = true;
      if (!progress) return false;
    }
    return sequences.empty();
  }

  SchedulerLimits limits;
  Scheduler scheduler;
  cache::Ledger ledger;
  double accumulate;
  std::mt19937 random;
  std::list<Sequence> sequences;
  std::deque<Step> steps;
  std::map<std::pair<RequestId, size_t>, std::vector<int64_t>> heads;  // slots per head
  std::vector<RequestId> done, failed;
  uint64_t last_id = 0, last_step = 0;
};

SchedulerLimits limits(std::vector<RankCapacity> ranks) {
  SchedulerLimits l;
  l.max_batched_tokens = 32;
  l.max_logit_rows = 64;
  l.page_slots = kPageSlots;
  l.ranks = std::move(ranks);
  return l;
}

TEST(scheduler, every_request_ends_whatever_the_pool) {
  for (unsigned seed = 1; seed <= 60; ++seed) {
    std::mt19937 random(seed);
    const auto pick = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
    SchedulerLimits l = limits({{pick(12, 120), 3, 64, 8}, {pick(12, 120), 2, 64, 8}});
    l.stages = pick(1, 3);
    l.swap_bytes = pick(0, 1) * pick(500, 20000);
    Simulation simulation(l, pick(1, 8), 0.1 * static_cast<double>(pick(0, 8)), seed);
    const int64_t count = pick(1, 12);
    for (int64_t i = 0; i < count; ++i) simulation.add(pick(1, 60), pick(1, 40), static_cast<int32_t>(pick(0, 1)));
    ASSERT_TRUE(simulation.drain(20000)) << "seed " << seed << ": no progress with " << simulation.sequences.size() << " open";
    EXPECT_EQ(simulation.done.size() + simulation.failed.size(), static_cast<size_t>(count)) << "seed " << seed;
    for (int rank = 0; rank < 2; ++rank) {
      EXPECT_EQ(simulation.ledger.free_pages(rank), l.ranks[rank].pages) << "seed " << seed;
      EXPECT_EQ(simulation.scheduler.swap_bytes_in_use(rank), 0) << "seed " << seed;
    }
  }
}

TEST(scheduler, decodes_come_before_prompts) {
  Simulation simulation(limits({{1000, 1, 64, 8}}), 8, 0.0, 1);
  Sequence& decoding = simulation.add(2, 50);
  ASSERT_TRUE(simulation.plan());
  simulation.complete();
  simulation.add(500, 5);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(simulation.plan());
    ASSERT_EQ(simulation.steps.front().items.front().sequence, &decoding);
    ASSERT_EQ(simulation.steps.front().items.front().tokens, 1);
    EXPECT_EQ(simulation.steps.front().items.back().tokens, 31);
    simulation.complete();
  }
}

TEST(scheduler, a_long_prompt_does_not_starve_a_short_one) {
  Simulation simulation(limits({{1000, 1, 64, 8}}), 8, 0.0, 1);
  simulation.add(600, 5);
  ASSERT_TRUE(simulation.plan());
  simulation.complete();
  const RequestId short_one = simulation.add(10, 1).request.id;
  ASSERT_TRUE(simulation.plan());
  simulation.complete();
  ASSERT_EQ(simulation.done.size(), 1u) << "ten tokens fit beside the long prompt's share in one step";
  EXPECT_EQ(simulation.done[0], short_one);
}

TEST(scheduler, first_come_first_served_within_a_priority) {
  Simulation simulation(limits({{1000, 1, 64, 8}}), 1, 0.0, 1);
  const RequestId a = simulation.add(3, 2).request.id, b = simulation.add(3, 2).request.id, urgent = simulation.add(3, 2, -1).request.id;
  ASSERT_TRUE(simulation.drain(100));
  EXPECT_EQ(simulation.done, (std::vector<RequestId>{urgent, a, b}));
}

TEST(scheduler, the_latest_gives_way) {
  // One head, 10 pages of 4 slots: two sequences of 20 tokens cannot both stay.
  Simulation simulation(limits({{10, 1, 64, 8}}), 4, 0.0, 1);
  const RequestId first = simulation.add(8, 20).request.id, second = simulation.add(8, 20).request.id;
  ASSERT_TRUE(simulation.drain(1000));
  EXPECT_EQ(simulation.done, (std::vector<RequestId>{first, second}));
}

TEST(scheduler, what_never_fits_is_named) {
  Simulation simulation(limits({{5, 1, 64, 8}}), 2, 0.0, 1);
  simulation.add(8, 100);
  ASSERT_TRUE(simulation.drain(1000));
  EXPECT_EQ(simulation.failed.size(), 1u);
  Sequence large;
  large.uses = {{.pages = 5, .slots = 20, .full_heads = 1}};
  large.computed = 20;
  const std::string reason = simulation.scheduler.impossible_reason(large);
  EXPECT_NE(reason.find("6 cache pages"), std::string::npos) << reason;
  EXPECT_NE(reason.find("has 5"), std::string::npos) << reason;
}

}  // namespace
}  // namespace accrete::worker
