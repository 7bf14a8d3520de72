// The executor that computes on the CPU: begin() does all of a step.
#pragma once

#include <deque>
#include <memory>
#include <vector>

#include "cache/kv_cache.h"
#include "kernels/thread_pool.h"
#include "parallel/device_group.h"
#include "worker/engine/rank_executor.h"
#include "worker/engine/sampler.h"
#include "worker/model/llama_stage.h"

namespace accrete::worker {

class CpuExecutor : public RankExecutor {
 public:
  CpuExecutor(const TensorSource& source, const EngineOptions& options, const RankGroups& groups);

  const RankInfo& info() const override { return info_; }
  void begin(StepPlan plan) override;
  int in_flight() const override { return static_cast<int>(reports_.size()); }
  bool done() override { return true; }
  StepReport finish() override;

 private:
  void move_rows(const StepPlan& plan, StepReport& report);
  void read_tokens(StepPlan& plan);
  void run_items(const StepPlan& plan, StepReport& report);
  void remember_tokens(const StepPlan& plan, const StepReport& report);
  void fill_batch(const StepPlan& plan);
  std::vector<double> mean_head_slots() const;
  bool first_stage() const { return place_.stage == 0; }
  bool last_stage() const { return place_.stage + 1 == groups_.topology.pipeline; }

  RankGroups groups_;
  parallel::Place place_;
  bool looks_ahead_;
  ThreadPool pool_;
  CpuStageDevice device_;
  std::unique_ptr<parallel::DeviceGroup> tensor_, replica_;
  std::unique_ptr<cache::KvCache> cache_;
  std::unique_ptr<LlamaStage> stage_;
  RankInfo info_;
  Samplers samplers_;
  std::vector<std::pair<RequestId, std::vector<std::byte>>> swapped_;
  std::vector<int32_t> last_token_;  // [rows] sampled last
  std::deque<StepReport> reports_;   // of steps not finished
  // The step's batch; sized once.
  std::vector<int32_t> row_, token_begin_, position_, ids_, logit_tokens_;
  std::vector<uint64_t> keys_;
};

}  // namespace accrete::worker
