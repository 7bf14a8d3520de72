// An executor for tests of the leader: its tokens are a function of what came before, its caches append in every head, and now and then a pool
// runs dry although it should not.
#pragma once

#include <gtest/gtest.h>

#include <deque>
#include <map>
#include <random>
#include <vector>

#include "worker/engine/rank_executor.h"

namespace accrete::worker {

inline constexpr int64_t kHeads = 6, kPages = 400;
inline constexpr int32_t kVocab = 1000, kPageSlots = 16;

inline int32_t next_token(const std::vector<int32_t>& tokens) {
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

 protected:
  RankInfo info_;

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

  double dry_rate_;
  std::mt19937 random_;
  int dry_steps_ = 0;
  std::map<int32_t, std::vector<int32_t>> rows_;
  std::map<int32_t, int32_t> last_;
  std::deque<StepReport> reports_;
};

}  // namespace accrete::worker
