#include "worker/engine/rank_executor.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>

#include "kernels/backend.h"
#include "kernels/check.h"
#include "worker/engine/settings.h"

namespace accrete::worker {
namespace {

constexpr int kHiddenTag = 101;

parallel::ShardSpec shard_of(const ModelConfig& config, const RankGroups& groups) {
  const parallel::Place place = parallel::place_of(groups.topology, groups.replica.rank());
  const parallel::ShardResult result = parallel::shard(groups.topology, place, network_shape(config));
  if (!result.error.empty()) throw std::invalid_argument(result.error);
  return result.spec;
}

}  // namespace

RankExecutor::RankExecutor(const TensorSource& source, const EngineOptions& options, RankGroups groups)
    : groups_(groups),
      place_(parallel::place_of(groups.topology, groups.replica.rank())),
      pool_(cpu_threads(options, groups.ranks_on_host)),
      dmc_(dmc_params(options, source.config())) {
  const parallel::ShardSpec shard = shard_of(source.config(), groups_);
  LlamaStageOptions stage_options;
  stage_options.weight_dtype = weight_dtype(options);
  stage_options.max_step_tokens = options.max_num_batched_tokens;
  stage_options.max_logit_rows = max_logit_rows(options);
  stage_options.dmc = dmc_;
  stage_ = std::make_unique<LlamaStage>(source, shard, stage_options, StageDevice{cpu_backend(), Stream{.pool = &pool_}}, groups_.tensor);
  const cache::KvCacheShape shape = cache_shape(options, source.config(), shard, groups_.ranks_on_host);
  cache_ = std::make_unique<cache::KvCache>(shape);
  info_.pages = shape.pages;
  info_.page_bytes = shape.page_bytes();
  const int64_t ring = shape.dmc ? std::max(shape.window, 1) * (2 * shape.head_size + 1) * static_cast<int64_t>(sizeof(float)) : 0;
  info_.row_state_bytes = static_cast<int64_t>(sizeof(cache::SnapshotHeader)) + shape.heads() * (ring + 2 * static_cast<int64_t>(sizeof(int32_t)));
  info_.weight_bytes = stage_->weight_bytes();
  info_.cache_state_bytes = shape.state_bytes();
  info_.layer_begin = shard.layers.begin;
  info_.layer_end = shard.layers.end;
  info_.kv_head_begin = shard.kv_heads.begin;
  info_.kv_head_end = shard.kv_heads.end;
  info_.max_model_len = shape.max_tokens;
  gethostname(info_.host, sizeof(info_.host) - 1);
}

StepReport RankExecutor::execute(const StepPlan& plan) {
  StepReport report;
  report.step = plan.step;
  move_rows(plan, report);
  if (!plan.items.empty()) run_items(plan, report);
  report.exhausted = cache_->take_exhausted();
  report.free_pages = cache_->free_pages();
  if (plan.want_heads) report.head_slots = mean_head_slots();
  return report;
}

void RankExecutor::move_rows(const StepPlan& plan, StepReport& report) {
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

void RankExecutor::fill_batch(const StepPlan& plan) {
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

void RankExecutor::receive_hidden(int64_t tokens) {
  const std::vector<std::byte> message = groups_.replica.recv(groups_.replica.rank() - groups_.topology.tensor, kHiddenTag);
  const View<float, 2> hidden = stage_->hidden(tokens);
  CHECK(static_cast<int64_t>(message.size()) == hidden.size() * 4, message.size(), hidden.size());
  std::memcpy(hidden.data, message.data(), message.size());
}

void RankExecutor::send_hidden(int64_t tokens) {
  const View<float, 2> hidden = stage_->hidden(tokens);
  groups_.replica.send(std::as_bytes(std::span(hidden.data, static_cast<size_t>(hidden.size()))),
                       groups_.replica.rank() + groups_.topology.tensor, kHiddenTag);
}

void RankExecutor::run_items(const StepPlan& plan, StepReport& report) {
  fill_batch(plan);
  const auto sequences = static_cast<int64_t>(row_.size()), tokens = static_cast<int64_t>(ids_.size());
  StageInput input;
  input.batch.row = View<int32_t, 1>(row_.data(), {sequences});
  input.batch.token_begin = View<int32_t, 1>(token_begin_.data(), {sequences + 1});
  input.batch.position = View<int32_t, 1>(position_.data(), {tokens});
  input.batch.sequence_key = View<uint64_t, 1>(keys_.data(), {sequences});
  input.ids = View<int32_t, 1>(ids_.data(), {tokens});
  input.logit_tokens = View<int32_t, 1>(logit_tokens_.data(), {static_cast<int64_t>(logit_tokens_.size())});
  if (!first_stage()) receive_hidden(tokens);
  stage_->forward(input, cache_->ref());
  if (!last_stage()) send_hidden(tokens);
  for (const PlanItem& item : plan.items) report.uses.push_back(cache_->use(item.row));
  if (!last_stage()) return;
  const View<float, 2> logits = stage_->logits();
  if (place_.shard != 0) return;
  for (const PlanItem& item : plan.items) samplers_.see(item);
  report.results = samplers_.results(plan.items, logits, pool_);
}

std::vector<double> RankExecutor::mean_head_slots() const {
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
