// The executor that computes on a GPU. begin() enqueues a step on the one stream and returns; finish() waits for the event behind it. Steps
// of decodes alone are replayed as CUDA graphs, captured at start-up for batches of each bucket (token_bucket). Exists in builds with CUDA.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "cache/device_kv_cache.h"
#include "kernels/device/device_graph.h"
#include "kernels/sampling/device_sampler.h"
#include "parallel/device_group.h"
#include "parallel/one_shot_group.h"
#include "worker/engine/gpu/step_buffers.h"
#include "worker/engine/rank_executor.h"
#include "worker/model/gpu_stage_device.h"

namespace accrete::worker {

class GpuExecutor : public RankExecutor {
 public:
  // Collective over the replica. What fails up to the first step that ranks take together is a StartError on all of them; what fails on one rank
  // in such a step is the device group's CommError on the others.
  GpuExecutor(const TensorSource& source, const EngineOptions& options, const RankGroups& groups);
  ~GpuExecutor() override;

  const RankInfo& info() const override { return info_; }
  OpTrace& trace() { return device_.trace(); }  // with trace_operations
  void begin(StepPlan plan) override;
  int in_flight() const override { return static_cast<int>(flying_.size()); }
  bool done() override { return flying_.front()->done.reached(); }
  StepReport finish() override;
  void check() override;

 private:
  // A step's host side: its plan, what is copied to the device and what comes back.
  struct Flight {
    Flight(size_t input_bytes, size_t output_bytes, size_t counted_bytes) : input(input_bytes), output(output_bytes), counted(counted_bytes) {}
    StepPlan plan;
    StepCounts counts;
    std::vector<int32_t> counted_rows;  // occupied rows whose slots were counted, after the released ones
    PinnedMemory input, output, counted;
    DeviceEvent begun, done;
  };

  void make_groups(bool gpus_shared, int64_t width);
  void make_one_shot(bool alone, int64_t width);
  void size_steps();
  void load_stage(const TensorSource& source, const parallel::ShardSpec& shard);
  void make_buffers();
  void tune_products();
  int64_t cache_budget(const cache::KvCacheShape& shape, int sharers);
  void make_cache(const cache::KvCacheShape& shape, int64_t budget);
  int64_t graph_bytes();
  std::vector<int64_t> buckets() const;
  DeviceGraph capture(int64_t batch);
  void capture_all();
  void fill_info(const parallel::ShardSpec& shard);

  void move_rows(Flight& flight);
  void swap_rows(const StepPlan& plan);
  void start_samplers(const StepPlan& plan);
  bool replays(const StepPlan& plan) const;
  void run_items(Flight& flight);
  void enqueue(const StageInput& input, StepInputs& inputs, const StepCounts& counts, bool pretend);
  void sample(const StepInputs& inputs, const StepCounts& counts, StepOutputs& outputs);
  void hand_on(int64_t tokens, bool receive);
  void count_heads(Flight& flight);
  View<int32_t, 2> counted(const Flight& flight, size_t first, size_t rows) const;

  bool first_stage() const { return place_.stage == 0; }
  bool last_stage() const { return place_.stage + 1 == groups_.topology.pipeline; }
  bool samples_here() const { return last_stage() && place_.shard == 0; }

  EngineOptions options_;
  RankGroups groups_;
  parallel::Place place_;
  GpuStageDevice device_;
  std::unique_ptr<parallel::DeviceGroup> tensor_, replica_;  // outlive the graphs
  std::unique_ptr<parallel::OneShotGroup> one_shot_;         // likewise; null: not wanted, or not possible
  parallel::OneShotLimits one_shot_limits_;
  std::unique_ptr<LlamaStage> stage_;
  std::unique_ptr<DeviceSamplerTables> samplers_;  // where tokens are sampled; by cache row
  DeviceMemory input_, output_, row_tokens_;
  StepCounts most_;  // of a step
  std::unique_ptr<cache::DeviceKvCache> cache_;
  std::map<int64_t, DeviceGraph> graphs_;  // by batch
  RankInfo info_;
  std::vector<std::pair<RequestId, std::vector<std::byte>>> swapped_;
  std::vector<bool> occupied_;  // [rows]
  std::vector<std::unique_ptr<Flight>> idle_;
  std::deque<std::unique_ptr<Flight>> flying_;  // oldest first
};

}  // namespace accrete::worker
