// What a GPU's executor does before the first step: load, tune, measure, allocate, capture.
#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <cstring>
#include <stdexcept>

#include "kernels/check.h"
#include "worker/engine/gpu/device_groups.h"
#include "worker/engine/gpu/gpu_executor.h"
#include "worker/engine/settings.h"
#include "worker/engine/start_errors.h"

namespace accrete::worker {
namespace {

constexpr int64_t kSpareBytes = int64_t{192} << 20;  // kernels that are loaded later, the driver's own
constexpr int64_t kOneShotBytes = 8 << 20;           // of an operation at most, twice that is taken; beyond it sums of a step mostly wait
constexpr int64_t kNodeBytes = 12 << 10;             // of an instantiated graph, where it cannot be measured

int gpu_index(const EngineOptions& options, const RankGroups& groups) {
  std::string why;
  const int count = device_count(&why);
  if (count == 0) throw std::runtime_error(fmt::format("--device cuda: {}; check nvidia-smi and CUDA_VISIBLE_DEVICES", why));
  return (options.base_gpu_id + groups.local_rank) % count;
}

// What the kernels do not do.
void check_model(const ModelConfig& config, const parallel::ShardSpec& shard, const EngineOptions& options) {
  const auto refuse = [](const std::string& what) { throw ModelError("--device cuda: " + what + "; use --device cpu"); };
  if (config.head_size != 64 && config.head_size != 128) refuse(fmt::format("head size {}; GPUs do 64 and 128", config.head_size));
  const int64_t multiple = options.quantization == "fp8" ? 16 : 8;
  if (config.hidden % multiple != 0) refuse(fmt::format("hidden size {}; a multiple of {} is needed", config.hidden, multiple));
  if (shard.mlp.size() % multiple != 0) {
    refuse(fmt::format("{} MLP columns in a shard; a multiple of {} is needed (--tensor-parallel-size)", shard.mlp.size(), multiple));
  }
  if (options.quantization == "fp8" && (config.hidden > kWidestFp8Norm || shard.mlp.size() > kWidestFp8Mlp)) {
    refuse(fmt::format("fp8 with hidden size {} and {} MLP columns in a shard; GPUs do {} and {} (--tensor-parallel-size)", config.hidden,
                       shard.mlp.size(), kWidestFp8Norm, kWidestFp8Mlp));
  }
  const int64_t group = config.query_heads / config.kv_heads;
  if (group > 64) refuse(fmt::format("{} query heads for a KV head; GPUs do 64", group));
}

// Pairs with the constructor's first shared error.
GpuStageDevice open_device(const EngineOptions& options, const RankGroups& groups) {
  try {
    return GpuStageDevice(gpu_index(options, groups), cpu_threads(options, groups.ranks_on_host));
  } catch (const std::exception& error) {
    share_error(groups.replica, error.what());
    throw;
  }
}

struct Sharers {
  int here = 1;  // ranks on this GPU
  int most = 1;  // on any of the replica's
};

Sharers sharers_of(const RankGroups& groups, const DeviceInfo& gpu) {
  Sharers sharers{ranks_on_gpu(groups.replica, gpu)};
  std::vector<int> all(groups.replica.size());
  groups.replica.all_gather(std::as_bytes(std::span(&sharers.here, 1)), std::as_writable_bytes(std::span(all)));
  for (int count : all) sharers.most = std::max(sharers.most, count);
  return sharers;
}

}  // namespace

// Whatever may fail on one rank alone runs shared, so that all ranks enter each collective operation or none does.
GpuExecutor::GpuExecutor(const TensorSource& source, const EngineOptions& options, const RankGroups& groups)
    : options_(options),
      groups_(groups),
      place_(parallel::place_of(groups.topology, groups.replica.rank())),
      device_(open_device(options, groups)) {
  parallel::ShardSpec shard;
  cache::KvCacheShape shape;
  run_shared(groups_.replica, [&] {
    if (options_.trace_operations) options_.enforce_eager = true;
    shard = shard_of(source.config(), groups_);
    check_model(source.config(), shard, options_);
    shape = cache_shape(options_, source.config(), shard);
  });
  const Sharers sharers = sharers_of(groups_, device_.info());
  make_groups(sharers.most > 1, source.config().hidden);
  run_shared(groups_.replica, [&] { load_stage(source, shard); });
  const int64_t budget = cache_budget(shape, sharers.here);
  run_shared(groups_.replica, [&] { make_cache(shape, budget); });
  capture_all();
  fill_info(shard);
}

void GpuExecutor::make_groups(bool gpus_shared, int64_t width) {
  run_shared(groups_.replica, [&] { tensor_ = make_device_group(options_, groups_.tensor, gpus_shared); });
  if (groups_.topology.pipeline > 1) {
    run_shared(groups_.replica, [&] { replica_ = make_device_group(options_, groups_.replica, gpus_shared); });
  }
  // Other replicas of the job on this host may have the same GPUs.
  const bool alone = !gpus_shared && groups_.ranks_on_host <= device_count();
  const bool wanted = options_.all_reduce == "one-shot" || (options_.all_reduce == "auto" && alone);
  if (wanted && groups_.topology.tensor > 1) run_shared(groups_.replica, [&] { make_one_shot(alone, width); });
}

// Where it was not asked for, GPUs that do not see each other's memory, or only say so, do without it. What fails fails on all ranks of the
// group: its making by exchange, its first operations because the ranks wait for each other in them.
void GpuExecutor::make_one_shot(bool alone, int64_t width) {
  const bool leads = groups_.tensor.rank() == 0;
  try {
    one_shot_ = parallel::make_one_shot_group(groups_.tensor.split(0, groups_.tensor.rank()), {.capacity = kOneShotBytes, .alone = alone});
    one_shot_limits_ = parallel::kUsualOneShotLimits;
    if (options_.tune_products && tensor_->capturable()) {
      one_shot_limits_ = parallel::tune_one_shot({*one_shot_, *tensor_, groups_.tensor, width, kOneShotBytes, options_.quantization != "fp8"}, device_.stream());
    }
  } catch (const parallel::CommError& error) {
    if (options_.all_reduce == "one-shot") throw;
    one_shot_.reset();
    tensor_->check();  // not its fault
    if (leads) spdlog::info("all_reduce.one_shot none why=\"{}\"", error.what());
    return;
  }
  if (leads) spdlog::info("all_reduce.one_shot sum_bytes={} norm_bytes={}", one_shot_limits_.sum_bytes, one_shot_limits_.norm_bytes);
}

void GpuExecutor::load_stage(const TensorSource& source, const parallel::ShardSpec& shard) {
  if (options_.trace_operations) device_.start_trace();
  size_steps();
  LlamaStageOptions sizes = stage_options(options_, source.config());
  sizes.one_shot = one_shot_.get();
  sizes.one_shot_limits = one_shot_limits_;
  sizes.max_step_tokens = most_.tokens;
  sizes.max_sequences = most_.sequences;
  sizes.max_logit_rows = most_.samples + most_.scores;
  stage_ = std::make_unique<LlamaStage>(source, shard, sizes, device_, *tensor_);
  if (samples_here()) samplers_ = std::make_unique<DeviceSamplerTables>(SamplerTableSize{most_.samples, source.config().vocab});
  make_buffers();
  tune_products();
}

// A bucket may be larger than the batch that it pads.
void GpuExecutor::size_steps() {
  const int64_t batch = token_bucket(options_.max_num_seqs);
  most_ = {std::max(options_.max_num_batched_tokens, batch), batch, batch, max_logit_rows(options_)};
}

void GpuExecutor::make_buffers() {
  input_ = DeviceMemory(StepInputs::bytes(most_));
  output_ = DeviceMemory(StepOutputs::bytes(most_));
  fill_device(output_.data(), 0, output_.bytes(), device_.stream());
  row_tokens_ = DeviceMemory(options_.max_num_seqs * sizeof(int32_t));
  fill_device(row_tokens_.data(), 0, row_tokens_.bytes(), device_.stream());
  occupied_.resize(options_.max_num_seqs);
}

std::vector<int64_t> GpuExecutor::buckets() const {
  std::vector<int64_t> sizes;
  for (int64_t batch = 1; batch <= options_.max_num_seqs; batch = sizes.back() + 1) sizes.push_back(token_bucket(batch));
  return sizes;
}

void GpuExecutor::tune_products() {
  if (!options_.tune_products) return;
  const LlamaWeights& weights = stage_->weights();
  std::vector<int64_t> sizes = buckets();
  std::vector<GemmToTune> layers(4), logits;
  for (int64_t i = 0; i < weights.layers(); ++i) {
    const LlamaLayerWeights& layer = weights.layer(i);
    layers[0].weights.push_back(layer.qkv.w);
    layers[1].weights.push_back(layer.output.w);
    layers[2].weights.push_back(layer.gate_up.w);
    layers[3].weights.push_back(layer.down.w);
  }
  if (last_stage()) device_.gemm_plans().tune(std::vector{GemmToTune{{weights.logit_weights()}, DType::f32}}, sizes, device_.stream());
  // Prompts, beside decodes. The buckets beyond kFineTokens are powers of two: none that is longer than a step.
  constexpr int64_t kFineTokens = 1024;
  while (sizes.back() < options_.max_num_batched_tokens) {
    const int64_t next = token_bucket(sizes.back() + 1);
    if (next > kFineTokens && next > options_.max_num_batched_tokens) break;
    sizes.push_back(next);
  }
  device_.gemm_plans().tune(layers, sizes, device_.stream());
}

// Bytes for this rank's caches: everything else is there, and what is left is theirs, once graphs have been measured on a cache of the least
// size. Collective: nobody measures before all ranks have given that cache back, nobody takes memory before all have measured.
int64_t GpuExecutor::cache_budget(const cache::KvCacheShape& shape, int sharers) {
  if (options_.kv_cache_memory_bytes > 0) return options_.kv_cache_memory_bytes;
  run_shared(groups_.replica, [&] {
    cache::KvCacheShape least = shape;
    least.sequences = 1;
    least.max_tokens = shape.page_slots;
    least.pages = shape.heads();
    cache_ = std::make_unique<cache::DeviceKvCache>(least, device_.stream());
  });
  int64_t graphs = 0, budget = 0;
  run_shared(groups_.replica, [&] {
    graphs = graph_bytes();
    cache_.reset();
    synchronize(device_.stream());
  });
  run_shared(groups_.replica, [&] {
    const int64_t total = device_.info().total_bytes, used = total - free_device_bytes();
    budget = (static_cast<int64_t>(options_.gpu_memory_utilization * static_cast<double>(total)) - used) / sharers - graphs - kSpareBytes;
    if (budget > 0) return;
    throw std::runtime_error(fmt::format("GPU {} ({}): weights and work space leave nothing for caches: {} of {} bytes are in use and "
                                         "--gpu-memory-utilization is {}; use more GPUs, --quantization fp8 or a smaller --max-num-batched-tokens",
                                         device_.info().index, device_.info().name, used, total, options_.gpu_memory_utilization));
  });
  return budget;
}

void GpuExecutor::make_cache(const cache::KvCacheShape& whole, int64_t budget) {
  cache::KvCacheShape shape = whole;
  set_pages(shape, budget);
  cache_ = std::make_unique<cache::DeviceKvCache>(shape, device_.stream());
  const size_t counted = 2 * static_cast<size_t>(options_.max_num_seqs * shape.heads()) * sizeof(int32_t);
  for (int i = 0; i < most_steps_in_flight(options_); ++i) {
    idle_.push_back(std::make_unique<Flight>(StepInputs::bytes(most_), StepOutputs::bytes(most_), counted));
  }
}

// Of all graphs, from one of them.
int64_t GpuExecutor::graph_bytes() {
  if (options_.enforce_eager || !(tensor_->size() == 1 || tensor_->capturable())) return 0;
  const std::vector<int64_t> sizes = buckets();
  capture(sizes.back());  // loads what is loaded once
  synchronize(device_.stream());
  const int64_t before = free_device_bytes();
  const DeviceGraph graph = capture(sizes.back());
  synchronize(device_.stream());
  const int64_t measured = before - free_device_bytes();
  return std::max(measured, static_cast<int64_t>(graph.nodes()) * kNodeBytes) * static_cast<int64_t>(sizes.size());
}

// The step of a batch of decodes, run once with padding alone, then captured.
DeviceGraph GpuExecutor::capture(int64_t batch) {
  const StepCounts counts{batch, batch, batch, 0};
  std::vector<std::byte> host(StepInputs::bytes(counts));
  StepInputs on_host(counts, host.data()), inputs(counts, input_.as<std::byte>());
  fill_inputs({}, counts, on_host);
  device_.upload(input_.data(), host.data(), static_cast<int64_t>(host.size()));
  const StageInput input = stage_input({}, inputs);
  enqueue(input, inputs, counts, false);
  synchronize(device_.stream());
  return DeviceGraph(device_.stream(), [&] { enqueue(input, inputs, counts, false); });
}

void GpuExecutor::capture_all() {
  if (options_.enforce_eager || !(tensor_->size() == 1 || tensor_->capturable())) return;
  const std::vector<int64_t> sizes = buckets();
  for (auto size = sizes.rbegin(); size != sizes.rend(); ++size) graphs_.emplace(*size, capture(*size));
  synchronize(device_.stream());
}

void GpuExecutor::fill_info(const parallel::ShardSpec& shard) {
  info_ = rank_info(cache_->shape(), shard);
  info_.weight_bytes = stage_->weights().bytes();
  info_.workspace_bytes = stage_->scratch_bytes();
  std::strncpy(info_.device, device_.info().name.c_str(), sizeof(info_.device) - 1);
}

}  // namespace accrete::worker
