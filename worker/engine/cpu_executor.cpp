#include "worker/engine/cpu_executor.h"

#include <algorithm>
#include <cstring>

#include "kernels/check.h"
#include "parallel/host_group.h"
#include "worker/engine/settings.h"

namespace accrete::worker {

CpuExecutor::CpuExecutor(const TensorSource& source, const EngineOptions& options, const RankGroups& groups)
    : groups_(groups),
      place_(parallel::place_of(groups.topology, groups.replica.rank())),
      looks_ahead_(looks_ahead(options)),
      pool_(cpu_threads(options, groups.ranks_on_host)),
      device_(pool_),
      tensor_(parallel::make_host_group(groups.tensor)),
      replica_(parallel::make_host_group(groups.replica)) {
  const parallel::ShardSpec shard = shard_of(source.config(), groups_);
  stage_ = std::make_unique<LlamaStage>(source, shard, stage_options(options, source.config()), device_, *tensor_);
  cache::KvCacheShape shape = cache_shape(options, source.config(), shard);
  set_pages(shape, cpu_cache_budget(options, shape, groups_.ranks_on_host));
  cache_ = std::make_unique<cache::KvCache>(shape);
  last_token_.resize(shape.sequences);
  info_ = rank_info(shape, shard);
  info_.weight_bytes = stage_->weights().bytes();
  info_.workspace_bytes = stage_->scratch_bytes();
  std::strcpy(info_.device, "cpu");
}

void CpuExecutor::begin(StepPlan plan) {
  StepReport report;
  report.step = plan.step;
  move_rows(plan, report);
  read_tokens(plan);
  if (!plan.items.empty()) run_items(plan, report);
  remember_tokens(plan, report);
  report.exhausted = cache_->take_exhausted();
  report.free_pages = cache_->free_pages();
  if (plan.want_heads) report.head_slots = mean_head_slots();
  reports_.push_back(std::move(report));
}

StepReport CpuExecutor::finish() {
  CHECK(!reports_.empty());
  StepReport report = std::move(reports_.front());
  reports_.pop_front();
  return report;
}

void CpuExecutor::read_tokens(StepPlan& plan) {
  for (PlanItem& item : plan.items) {
    for (int32_t& token : item.tokens) token = token == kUnreadToken ? last_token_[item.row] : token;
  }
}

// For the next step, which may be planned before the leader has read this one's tokens: the sampling rank tells its tensor group, which is
// the first stage too (there is no lookahead over several stages).
void CpuExecutor::remember_tokens(const StepPlan& plan, const StepReport& report) {
  if (!looks_ahead_) return;
  std::vector<int32_t> tokens(plan.items.size(), kUnreadToken);
  for (size_t i = 0; i < report.results.size(); ++i) {
    if (report.results[i].sampled) tokens[i] = report.results[i].sampled->id;
  }
  if (tokens.empty()) return;
  tensor_->broadcast(std::as_writable_bytes(std::span(tokens)), 0, device_.stream());
  for (size_t i = 0; i < plan.items.size(); ++i) {
    if (plan.items[i].sample) last_token_[plan.items[i].row] = tokens[i];
  }
}

void CpuExecutor::move_rows(const StepPlan& plan, StepReport& report) {
  for (int32_t row : plan.releases) {
    report.released.push_back(cache_->slot_counts(row));
    cache_->release(row);
  }
  for (const RowSwap& swap : plan.swap_outs) {
    swapped_.emplace_back(swap.id, cache_->export_row(swap.row));
    cache_->release(swap.row);
  }
  const auto forget = [&](RequestId id) { std::erase_if(swapped_, [&](const auto& entry) { return entry.first == id; }); };
  for (const RowSwap& swap : plan.swap_ins) {
    const auto found = std::find_if(swapped_.begin(), swapped_.end(), [&](const auto& entry) { return entry.first == swap.id; });
    CHECK(found != swapped_.end(), swap.id);
    CHECK(cache_->import_row(swap.row, found->second), swap.id, cache_->free_pages());  // the ledger counted its pages
    forget(swap.id);
  }
  for (RequestId id : plan.drops) {
    forget(id);
    samplers_.drop(id);
  }
}

void CpuExecutor::fill_batch(const StepPlan& plan) {
  row_.clear();
  position_.clear();
  ids_.clear();
  logit_tokens_.clear();
  keys_.clear();
  token_begin_.assign(1, 0);
  for (const PlanItem& item : plan.items) {
    const auto first = static_cast<int32_t>(ids_.size());
    row_.push_back(item.row);
    keys_.push_back(item.decision_key);
    ids_.insert(ids_.end(), item.tokens.begin(), item.tokens.end());
    for (size_t i = 0; i < item.tokens.size(); ++i) position_.push_back(static_cast<int32_t>(item.begin + static_cast<int64_t>(i)));
    token_begin_.push_back(static_cast<int32_t>(ids_.size()));
    for (int64_t i = 0; i < item.score_rows(); ++i) logit_tokens_.push_back(first + item.score_from + static_cast<int32_t>(i));
    if (item.sample) logit_tokens_.push_back(static_cast<int32_t>(ids_.size()) - 1);
  }
}

void CpuExecutor::run_items(const StepPlan& plan, StepReport& report) {
  fill_batch(plan);
  const auto sequences = static_cast<int64_t>(row_.size()), tokens = static_cast<int64_t>(ids_.size());
  StageInput input;
  input.batch.row = View<int32_t, 1>(row_.data(), {sequences});
  input.batch.token_begin = View<int32_t, 1>(token_begin_.data(), {sequences + 1});
  input.batch.position = View<int32_t, 1>(position_.data(), {tokens});
  input.batch.sequence_key = View<uint64_t, 1>(keys_.data(), {sequences});
  input.ids = View<int32_t, 1>(ids_.data(), {tokens});
  input.logit_tokens = View<int32_t, 1>(logit_tokens_.data(), {static_cast<int64_t>(logit_tokens_.size())});
  const AnyView<2> hidden = stage_->hidden(tokens);
  const std::span<std::byte> bytes(static_cast<std::byte*>(hidden.data), static_cast<size_t>(tokens * hidden.shape[1]) * size_of(hidden.dtype));
  const int rank = replica_->rank(), next = groups_.topology.tensor;
  if (!first_stage()) replica_->recv(bytes, rank - next, device_.stream());
  if (plan.pretends()) stage_->pretend(input, cache_->ref());
  else stage_->forward(input, cache_->ref());
  if (!last_stage()) replica_->send(bytes, rank + next, device_.stream());
  for (const PlanItem& item : plan.items) report.uses.push_back(cache_->use(item.row));
  if (!last_stage()) return;
  const View<float, 2> logits = stage_->logits();
  if (place_.shard != 0) return;
  for (const PlanItem& item : plan.items) samplers_.see(item);
  report.results = samplers_.results(plan.items, logits, pool_);
}

std::vector<double> CpuExecutor::mean_head_slots() const {
  const cache::KvCacheShape& shape = cache_->shape();
  std::vector<double> mean(shape.heads(), 0.0);
  int64_t occupied = 0;
  for (int32_t row = 0; row < shape.sequences; ++row) {
    const std::vector<int32_t> counts = cache_->slot_counts(row);
    if (counts.empty() || counts[0] == 0) continue;
    ++occupied;
    for (size_t i = 0; i < counts.size(); ++i) mean[i] += counts[i];
  }
  for (double& value : mean) value /= std::max<double>(1.0, static_cast<double>(occupied));
  return mean;
}

}  // namespace accrete::worker
