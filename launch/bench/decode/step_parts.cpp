#include "launch/bench/decode/step_parts.h"

#if defined(ACCRETE_CUDA)
#include <algorithm>
#include <exception>
#include <future>
#include <memory>

#include "worker/engine/gpu/gpu_executor.h"
#include "worker/engine/settings.h"
#endif

namespace accrete::launch {

#if defined(ACCRETE_CUDA)
namespace {

constexpr int kWarmSteps = 3;
constexpr int kSteps = 5;

// One step of an executor that nobody leads: `tokens` more of rows [first, last). Prompts fill the caches and are not computed: those of a large
// batch would take minutes.
worker::StepPlan plan_of(int64_t first, int64_t last, std::vector<int64_t>& length, int64_t tokens) {
  worker::StepPlan plan;
  for (int64_t row = first; row < last; ++row) {
    worker::PlanItem item;
    item.id = static_cast<worker::RequestId>(row + 1);
    item.row = static_cast<int32_t>(row);
    item.decision_key = item.id;
    item.begin = length[row];
    item.tokens.assign(tokens, 1);
    item.sample = true;
    item.pretend = true;
    if (item.begin == 0) {
      item.setup = worker::SamplerSetup{{}, tokens, 0, {}, {}};
      item.setup->params.temperature = 0.0f;
    }
    length[row] += tokens;
    plan.items.push_back(std::move(item));
  }
  return plan;
}

Parts parts_of_rank(const worker::TensorSource& source, const worker::EngineOptions& options, parallel::Communicator& replica, int64_t batch,
                    int64_t context) {
  const auto shards = replica.split(0, replica.rank());
  worker::GpuExecutor executor(source, options, {replica, *shards, options.topology, replica.size(), replica.rank()});
  std::vector<int64_t> length(batch);
  const auto run = [&](worker::StepPlan plan) {
    executor.begin(std::move(plan));
    executor.finish();
  };
  for (int64_t row = 0; row < batch; ++row) {
    for (int64_t rest = context - row % 16; rest > 0; rest -= options.max_num_batched_tokens) {
      run(plan_of(row, row + 1, length, std::min(rest, options.max_num_batched_tokens)));
    }
  }
  for (int i = 0; i < kWarmSteps; ++i) run(plan_of(0, batch, length, 1));
  executor.trace().take();
  for (int i = 0; i < kSteps; ++i) run(plan_of(0, batch, length, 1));
  Parts parts = executor.trace().take();
  for (auto& part : parts) part.second /= kSteps;
  return parts;
}

}  // namespace

Parts step_parts(const worker::EngineOptions& given, int64_t batch, int64_t context) {
  worker::EngineOptions options = given;
  options.trace_operations = true;
  if (options.topology.pipeline > 1 || !worker::on_gpu(options)) return {};
  const auto source = worker::open_model(options.model, {options.load_format, options.adapter, options.seed});
  if (options.topology.tensor == 1) return parts_of_rank(*source, options, *parallel::make_single(), batch, context);
  std::vector<std::unique_ptr<parallel::Communicator>> ranks = parallel::make_threads(options.topology.tensor);
  std::vector<std::future<Parts>> each;
  for (const auto& rank : ranks) {
    each.push_back(std::async(std::launch::async, [&source, &options, &replica = *rank, batch, context] {
      try {
        return parts_of_rank(*source, options, replica, batch, context);
      } catch (const std::exception& error) {
        replica.abort(1, error.what());  // so that the others end, too
        throw;
      }
    }));
  }
  for (const auto& rank : each) rank.wait();
  Parts parts = each[0].get();
  for (size_t rank = 1; rank < each.size(); ++rank) each[rank].get();
  return parts;
}
#else
Parts step_parts(const worker::EngineOptions&, int64_t, int64_t) { return {}; }
#endif

}  // namespace accrete::launch
