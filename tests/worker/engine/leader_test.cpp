// The leader over an executor of this test's: its tokens are a function of what came before, its caches append in every head, and now and then
// a pool runs dry although it should not. Whatever happens to a step, the tokens that come out are the same.
#include "worker/engine/leader.h"

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <thread>

namespace accrete::worker {
namespace {

constexpr int64_t kHeads = 6, kPages = 400;
constexpr int32_t kVocab = 1000, kPageSlots = 16;

int32_t next_token(const std::vector<int32_t>& tokens) {
  uint32_t hash = 17;
  for (int32_t token : tokens) hash = hash * 31 + static_cast<uint32_t>(token) + 7;
  return static_cast<int32_t>(hash % kVocab);
}

class ScriptedExecutor : public RankExecutor {
 public:
  ScriptedExecutor(double dry_rate, unsigned seed) : dry_rate_(dry_rate), random_(seed) {
    info_.pages = kPages;
    info_.page_bytes = 1024;
    info_.layer_end = kHeads;
    info_.kv_head_end = 1;
    info_.max_model_len = 512;
  }

  const RankInfo& info() const override { return info_; }
  int in_flight() const override { return static_cast<int>(reports_.size()); }
  bool done() override { return true; }
  int dry_steps() const { return dry_steps_; }

  void begin(StepPlan plan) override {
    StepReport report;
    report.step = plan.step;
    for (int32_t row : plan.releases) {
      report.released.emplace_back(kHeads, static_cast<int32_t>(rows_[row].size()));
      rows_.erase(row);
    }
    report.exhausted = !plan.items.empty() && std::bernoulli_distribution(dry_rate_)(random_);
    dry_steps_ += report.exhausted ? 1 : 0;
    for (PlanItem& item : plan.items) report.results.push_back(run(item, report.exhausted));
    for (const PlanItem& item : plan.items) {
      cache::RowUse use;
      for (int64_t head = 0; head < kHeads; ++head) use.add_head(static_cast<int32_t>(rows_[item.row].size()), kPageSlots);
      report.uses.push_back(use);
    }
    if (plan.want_heads) report.head_slots.assign(kHeads, 1.0);
    reports_.push_back(std::move(report));
  }
  StepReport finish() override {
    StepReport report = std::move(reports_.front());
    reports_.pop_front();
    return report;
  }

 private:
  ItemResult run(PlanItem& item, bool dry) {
    std::vector<int32_t>& row = rows_[item.row];
    EXPECT_EQ(static_cast<int64_t>(row.size()), item.begin) << "row " << item.row;
    for (int32_t& token : item.tokens) row.push_back(token == kUnreadToken ? last_.at(item.row) : token);
    if (!item.sample) return {};
    last_[item.row] = dry ? 999 : next_token(row);
    ItemResult result;
    result.sampled = TokenOut{last_[item.row], 0.0f, 0, {}};
    return result;
  }

  RankInfo info_;
  double dry_rate_;
  std::mt19937 random_;
  int dry_steps_ = 0;
  std::map<int32_t, std::vector<int32_t>> rows_;
  std::map<int32_t, int32_t> last_;
  std::deque<StepReport> reports_;
};

// dry_steps: of how many steps the pool ran dry.
void every_answer_is_right(double dry_rate, const char* lookahead, unsigned seed, int& dry_steps) {
  ScriptedExecutor executor(dry_rate, seed);
  const auto alone = parallel::make_single();
  std::map<RequestId, RequestOutput> whole;
  Leader::Setup setup;
  setup.model = {kHeads, 1, kVocab, 512, {}};
  setup.options.max_num_seqs = 6;
  setup.options.max_num_batched_tokens = 40;
  setup.options.async_scheduling = lookahead;
  setup.ranks = {executor.info()};
  setup.sink = [&](std::vector<RequestOutput>&& outputs) {
    for (RequestOutput& output : outputs) {
      RequestOutput& mine = whole[output.id];
      mine.tokens.insert(mine.tokens.end(), output.tokens.begin(), output.tokens.end());
      if (output.finish != FinishReason::none) mine.finish = output.finish;
    }
  };
  Leader leader(std::move(setup), executor, *alone);
  std::mt19937 random(seed);
  std::map<RequestId, std::vector<int32_t>> prompts;
  for (RequestId id = 1; id <= 12; ++id) {
    Request request;
    request.id = id;
    request.prompt.resize(std::uniform_int_distribution<int>(1, 70)(random));
    for (int32_t& token : request.prompt) token = std::uniform_int_distribution<int32_t>(0, kVocab - 1)(random);
    request.max_tokens = 30;
    prompts[id] = request.prompt;
    leader.submit(std::move(request));
  }
  std::thread steps([&] { leader.run(); });
  while (!leader.idle()) std::this_thread::yield();
  leader.stop();
  steps.join();
  ASSERT_EQ(whole.size(), prompts.size());
  for (auto& [id, tokens] : prompts) {
    EXPECT_EQ(whole[id].finish, FinishReason::length);
    ASSERT_EQ(whole[id].tokens.size(), 30u);
    for (const TokenOut& token : whole[id].tokens) {
      ASSERT_EQ(token.id, next_token(tokens)) << "request " << id << " after " << tokens.size() << " tokens";
      tokens.push_back(token.id);
    }
  }
  EXPECT_EQ(leader.status().pages_free, std::vector<int64_t>{kPages});
  dry_steps = executor.dry_steps();
}

TEST(leader, steps_of_which_a_pool_ran_dry_are_done_again) {
  int all = 0;
  for (const char* lookahead : {"off", "on"}) {
    for (unsigned seed = 1; seed <= 8; ++seed) {
      int dry = 0;
      every_answer_is_right(0.0, lookahead, seed, dry);
      EXPECT_EQ(dry, 0);
      every_answer_is_right(0.1, lookahead, seed, dry);
      all += dry;
    }
  }
  EXPECT_GT(all, 30);
}

}  // namespace
}  // namespace accrete::worker
