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

  Simulation(SchedulerLimits l, int64_t rows, double accumulate_rate, unsigned seed)
      : limits(std::move(l)), scheduler(limits, rows), ledger(pages()), accumulate(accumulate_rate), random(seed) {}

  std::vector<int64_t> pages() const {
    std::vector<int64_t> list;
    for (const RankCapacity& rank : limits.ranks) list.push_back(rank.pages);
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
    sequence.reserved.resize(limits.ranks.size());
    sequence.limit = prompt + max_tokens;
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
      EXPECT_LE(item.sequence->flights, limits.lookahead ? 2 : 1);
      EXPECT_GE(item.sequence->row, 0);
      EXPECT_GT(item.tokens, 0);
      EXPECT_EQ(item.begin + item.tokens, item.sequence->scheduled);
      EXPECT_GE(item.sequence->remaining(), 0);
      EXPECT_LE(static_cast<int64_t>(item.sequence->tokens.size()) + item.sequence->unread, item.sequence->limit);
      tokens += item.tokens;
    }
    EXPECT_LE(tokens, limits.max_batched_tokens);
    for (const Sequence& sequence : sequences) {
      if (sequence.state == SequenceState::running) {
        EXPECT_TRUE(rows.insert(sequence.row).second) << "row " << sequence.row << " is used twice";
      }
    }
    for (size_t rank = 0; rank < limits.ranks.size(); ++rank) EXPECT_GE(ledger.surely_free(static_cast<int>(rank)), 0);
    for (Sequence* sequence : schedule.impossible) finish(*sequence, true);
    if (schedule.items.empty()) return !schedule.recomputes.empty() || !schedule.swap_outs.empty() || !schedule.impossible.empty();
    steps.push_back(schedule.items);
    return true;
  }

  // The oldest step ends: every head of every rank appends or accumulates each token. The ledger checks that no more pages are taken than
  // were reserved.
  void complete() {
    const std::vector<ScheduledItem> items = steps.front();
    steps.pop_front();
    for (const ScheduledItem& item : items) {
      Sequence& sequence = *item.sequence;
      std::vector<cache::RowUse> uses;
      for (size_t rank = 0; rank < limits.ranks.size(); ++rank) uses.push_back(run(sequence, rank, item.tokens));
      scheduler.report(item, uses, ledger);
      if (item.sample && sequence.ending == FinishReason::none) {
        sequence.tokens.push_back(2);
        const bool stops = stop_rate > 0 && std::bernoulli_distribution(stop_rate)(random);
        if (stops || sequence.generated() >= sequence.request.max_tokens) sequence.ending = FinishReason::stop, sequence.cancelled = true;
      }
      if (sequence.ending != FinishReason::none && sequence.flights == 0) finish(sequence, false);
    }
  }

  cache::RowUse run(const Sequence& sequence, size_t rank, int64_t tokens) {
    auto& slots = heads[{sequence.request.id, rank}];
    if (sequence.computed == 0) slots.assign(limits.ranks[rank].heads, 0);
    std::bernoulli_distribution accumulates(accumulate);
    cache::RowUse use;
    for (int64_t& count : slots) {
      for (int64_t t = 0; t < tokens; ++t) count += count == 0 || !accumulates(random) ? 1 : 0;
      use.add_head(static_cast<int32_t>(count), kPageSlots);
    }
    return use;
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
      const int64_t most = limits.lookahead ? 2 : limits.stages;
      while (static_cast<int64_t>(steps.size()) < most && plan()) progress = true;
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
  std::deque<std::vector<ScheduledItem>> steps;  // in flight
  std::map<std::pair<RequestId, size_t>, std::vector<int64_t>> heads;  // slots per head
  std::vector<RequestId> done, failed;
  double stop_rate = 0.0;  // of sampled tokens that end their sequence
  uint64_t last_id = 0;
};

SchedulerLimits limits(std::vector<RankCapacity> ranks) {
  SchedulerLimits l;
  l.max_batched_tokens = 32;
  l.max_logit_rows = 64;
  l.page_slots = kPageSlots;
  l.ranks = std::move(ranks);
  return l;
}

// Pools of any size, with and without swapping, several stages or lookahead, answers that end early.
void every_request_ends(unsigned seed, bool lookahead) {
  std::mt19937 random(seed);
  const auto pick = [&](int64_t low, int64_t high) { return std::uniform_int_distribution<int64_t>(low, high)(random); };
  SchedulerLimits l = limits({{pick(12, 120), 3, 64, 8}, {pick(12, 120), 2, 64, 8}});
  l.lookahead = lookahead;
  l.stages = lookahead ? 1 : pick(1, 3);
  l.swap_bytes = pick(0, 1) * pick(500, 20000);
  Simulation simulation(l, pick(1, 8), 0.1 * static_cast<double>(pick(0, 8)), seed);
  simulation.stop_rate = 0.05 * static_cast<double>(pick(0, 2));
  const int64_t count = pick(1, 12);
  for (int64_t i = 0; i < count; ++i) simulation.add(pick(1, 60), pick(1, 40), static_cast<int32_t>(pick(0, 1)));
  ASSERT_TRUE(simulation.drain(20000)) << "seed " << seed << ": no progress with " << simulation.sequences.size() << " open";
  EXPECT_EQ(simulation.done.size() + simulation.failed.size(), static_cast<size_t>(count)) << "seed " << seed;
  for (int rank = 0; rank < 2; ++rank) {
    EXPECT_EQ(simulation.ledger.free_pages(rank), l.ranks[rank].pages) << "seed " << seed;
    EXPECT_EQ(simulation.ledger.surely_free(rank), l.ranks[rank].pages) << "seed " << seed;
    EXPECT_EQ(simulation.scheduler.swap_bytes_in_use(rank), 0) << "seed " << seed;
  }
}

TEST(scheduler, every_request_ends_whatever_the_pool) {
  for (unsigned seed = 1; seed <= 60; ++seed) every_request_ends(seed, false);
}

TEST(scheduler, every_request_ends_with_lookahead) {
  for (unsigned seed = 1; seed <= 200; ++seed) every_request_ends(seed, true);
}

TEST(scheduler, lookahead_plans_a_decode_before_its_token_is_read) {
  SchedulerLimits l = limits({{1000, 1, 64, 8}});
  l.lookahead = true;
  Simulation simulation(l, 8, 0.0, 1);
  Sequence& sequence = simulation.add(40, 3);  // two chunks, then the samples
  ASSERT_TRUE(simulation.plan());
  ASSERT_TRUE(simulation.plan());
  EXPECT_EQ(simulation.steps[0].front().begin, 0);
  EXPECT_EQ(simulation.steps[1].front().begin, 32);
  EXPECT_TRUE(simulation.steps[1].front().sample);
  simulation.complete();
  ASSERT_TRUE(simulation.plan());
  EXPECT_EQ(simulation.steps[1].front().begin, 40) << "the token at 40 is not known yet";
  simulation.complete();
  ASSERT_TRUE(simulation.plan());
  simulation.complete();
  EXPECT_FALSE(simulation.plan()) << "the third token is in flight and is the last";
  EXPECT_EQ(sequence.unread, 1);
  simulation.complete();
  EXPECT_EQ(simulation.done.size(), 1u);
}

TEST(worst_case, is_what_appends_in_every_head_take) {
  for (int32_t size : {1, 2, 3, 4, 16}) {
    for (int64_t tokens = 0; tokens < 40; ++tokens) {
      for (int32_t slots = 0; slots <= 2 * size; ++slots) {
        cache::RowUse use, after;
        use.add_head(slots, size);
        after.add_head(slots + static_cast<int32_t>(tokens), size);
        const int64_t taken = after.pages - use.pages, bound = cache::worst_case_pages(use, 1, tokens, size);
        EXPECT_LE(taken, bound) << "size " << size << " tokens " << tokens << " slots " << slots;
        const int32_t room = (size - slots % size) % size;
        if (room > 2) continue;  // counted as 2
        EXPECT_EQ(taken, bound) << "size " << size << " tokens " << tokens << " slots " << slots;
      }
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
    ASSERT_EQ(simulation.steps.front().front().sequence, &decoding);
    ASSERT_EQ(simulation.steps.front().front().tokens, 1);
    EXPECT_EQ(simulation.steps.front().back().tokens, 31);
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

TEST(scheduler, prompts_of_a_burst_are_answered_one_after_another) {
  Simulation simulation(limits({{1000, 1, 64, 8}}), 8, 0.0, 1);
  std::vector<RequestId> all;
  for (int i = 0; i < 4; ++i) all.push_back(simulation.add(96, 1).request.id);
  for (size_t done = 1; done <= 4; ++done) {
    for (int i = 0; i < 3; ++i) {  // 32 tokens each
      ASSERT_TRUE(simulation.plan());
      simulation.complete();
    }
    EXPECT_EQ(simulation.done, std::vector<RequestId>(all.begin(), all.begin() + static_cast<std::ptrdiff_t>(done)));
  }
}

TEST(scheduler, an_urgent_prompt_comes_before_a_shorter_one) {
  Simulation simulation(limits({{1000, 1, 64, 8}}), 8, 0.0, 1);
  const RequestId usual = simulation.add(40, 1).request.id, urgent = simulation.add(96, 1, -1).request.id;
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(simulation.plan());
    simulation.complete();
  }
  EXPECT_EQ(simulation.done, (std::vector<RequestId>{urgent}));
  ASSERT_TRUE(simulation.drain(100));
  EXPECT_EQ(simulation.done, (std::vector<RequestId>{urgent, usual}));
}

TEST(scheduler, short_prompts_do_not_starve_a_long_one) {
  Simulation simulation(limits({{1000, 1, 64, 8}}), 8, 0.0, 1);
  Sequence& long_one = simulation.add(600, 1);
  for (int i = 0; i < 200; ++i) simulation.add(40, 1);
  for (int i = 0; i < 20; ++i) {
    const int64_t before = long_one.scheduled;
    ASSERT_TRUE(simulation.plan());
    EXPECT_EQ(long_one.scheduled - before, 8) << "a quarter of a step";
    EXPECT_EQ(simulation.steps.front().size() > 1, true);
    simulation.complete();
  }
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
