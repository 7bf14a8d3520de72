#include "worker/engine/settings.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <stdexcept>
#include <string>

#include "cache/snapshot.h"
#if defined(ACCRETE_CUDA)
#include "kernels/device/device_memory.h"
#endif

namespace accrete::worker {
namespace {

constexpr int64_t kDefaultCacheBytes = int64_t{4} << 30;
// A grid's second dimension ends at 65535. The cache updates on GPUs lay it along the sequences of a batch, padded to a power of two and with
// one more for the free list, and along words of 32 tokens.
constexpr int64_t kMostSequences = 32768;
constexpr int64_t kMostBatchedTokens = 1 << 20;

// What a GPU reads in the time that a stage waits where tokens go through the host: some 0.3 ms.
constexpr int64_t kWeightsOfAGap = int64_t{1} << 30;

bool known_dtype(const std::string& name) { return name == "auto" || name == "bfloat16" || name == "float32"; }

int64_t free_host_memory() {
  std::ifstream meminfo("/proc/meminfo");
  std::string key;
  int64_t kib = 0;
  while (meminfo >> key >> kib) {
    if (key == "MemAvailable:") return kib * 1024;
    meminfo.ignore(256, '\n');
  }
  return kDefaultCacheBytes;
}

// What a GPU's kernels do not do.
std::string check_gpu_options(const EngineOptions& o) {
  if (o.device != "cuda") return "";
  if (o.dtype == "float32") return "--dtype float32: GPUs compute in bfloat16; use --device cpu";
  if (o.kv_cache_dtype == "float32") return "--kv-cache-dtype float32: caches on GPUs are bfloat16; use --device cpu";
  if (o.block_size % 16 != 0) return fmt::format("--block-size {}: a multiple of 16 on GPUs", o.block_size);
  return "";
}

std::string check_lengths(const EngineOptions& o) {
  if (o.max_model_len < 0) return fmt::format("--max-model-len {}: at least 1", o.max_model_len);
  if (o.max_num_seqs < 0 || o.max_num_seqs > kMostSequences) return fmt::format("--max-num-seqs {}: 1 to {}", o.max_num_seqs, kMostSequences);
  if (o.max_num_batched_tokens < 0 || o.max_num_batched_tokens > kMostBatchedTokens) {
    return fmt::format("--max-num-batched-tokens {}: 1 to {}", o.max_num_batched_tokens, kMostBatchedTokens);
  }
  if (o.max_num_batched_tokens > 0 && o.max_num_batched_tokens < o.max_num_seqs) {
    return fmt::format("--max-num-batched-tokens {}: at least --max-num-seqs ({})", o.max_num_batched_tokens, o.max_num_seqs);
  }
  return "";
}

}  // namespace

std::string check_options(const EngineOptions& o) {
  if (o.model.empty()) return "--model: name a model directory, a .gguf file or, with --load-format dummy, a shape";
  if (o.device != "auto" && o.device != "cpu" && o.device != "cuda") return fmt::format("--device {}: use auto, cpu or cuda", o.device);
  if (!known_dtype(o.dtype)) return fmt::format("--dtype {}: use auto, bfloat16 or float32", o.dtype);
  if (!known_dtype(o.kv_cache_dtype)) return fmt::format("--kv-cache-dtype {}: use auto, bfloat16 or float32", o.kv_cache_dtype);
  if (o.load_format != "auto" && o.load_format != "gguf" && o.load_format != "dummy") {
    return fmt::format("--load-format {}: use auto, gguf or dummy", o.load_format);
  }
  if (o.dmc != "auto" && o.dmc != "off") return fmt::format("--dmc {}: use auto or off", o.dmc);
  if (o.topology.tensor < 1) return fmt::format("--tensor-parallel-size {}: at least 1", o.topology.tensor);
  if (o.topology.pipeline < 1) return fmt::format("--pipeline-parallel-size {}: at least 1", o.topology.pipeline);
  if (o.topology.data < 1) return fmt::format("--data-parallel-size {}: at least 1", o.topology.data);
  if (const std::string wrong = check_lengths(o); !wrong.empty()) return wrong;
  if (o.base_gpu_id < 0) return fmt::format("--base-gpu-id {}: not negative", o.base_gpu_id);
  if (o.block_size < 1 || o.block_size > 128 || 128 % o.block_size != 0) return fmt::format("--block-size {}: a divisor of 128", o.block_size);
  if (o.kv_cache_memory_bytes < 0) return fmt::format("--kv-cache-memory-bytes {}: not negative", o.kv_cache_memory_bytes);
  if (!(o.gpu_memory_utilization > 0.0 && o.gpu_memory_utilization <= 1.0)) {
    return fmt::format("--gpu-memory-utilization {}: more than 0, at most 1", o.gpu_memory_utilization);
  }
  if (!(o.swap_space_gib >= 0.0 && o.swap_space_gib < 1e6)) return fmt::format("--swap-space {}: GiB, not negative", o.swap_space_gib);
  if (o.dmc_window < -1 || o.dmc_window > 4096) return fmt::format("--dmc-window {}: 0 (no limit) to 4096", o.dmc_window);
  if (o.dmc_synthetic_cr != 0.0 && !(o.dmc_synthetic_cr >= 1.0 && o.dmc_synthetic_cr <= 64.0)) {
    return fmt::format("--dmc-synthetic-cr {}: 1 to 64", o.dmc_synthetic_cr);
  }
  if (o.cpu_threads < 0 || o.cpu_threads > 1024) return fmt::format("--cpu-threads {}: 1 to 1024", o.cpu_threads);
  if (o.all_reduce != "auto" && o.all_reduce != "group" && o.all_reduce != "one-shot") return fmt::format("--all-reduce {}: use auto, group or one-shot", o.all_reduce);
  if (!o.quantization.empty() && o.quantization != "fp8") return fmt::format("--quantization {}: fp8 is what there is", o.quantization);
  if (o.quantization == "fp8" && o.device == "cpu") return "--quantization fp8: on GPUs alone";
  return check_gpu_options(o);
}

EngineOptions resolved(const EngineOptions& options) {
  EngineOptions o = options;
#if defined(ACCRETE_CUDA)
  std::string why;
  const bool gpus = o.device != "cpu" && device_count(&why) > 0;
  if (o.device == "cuda" && !gpus) throw std::runtime_error(fmt::format("--device cuda: {}; check nvidia-smi and CUDA_VISIBLE_DEVICES", why));
  const bool asked = o.device == "cuda";
  // A GPU that is there and cannot be used is not passed over in silence.
  if (o.device == "auto" && !gpus && access("/proc/driver/nvidia/version", F_OK) == 0) spdlog::warn("device.cpu why=\"{}\"", why);
  if (o.device == "auto") o.device = gpus ? "cuda" : "cpu";
  // "auto" takes the CPU for what GPUs do not do.
  if (!asked && o.device == "cuda" && !check_gpu_options(o).empty()) o.device = "cpu";
#else
  if (o.device == "cuda") throw std::runtime_error("--device cuda: this build has no CUDA; build with nvcc, or use --device cpu");
  o.device = "cpu";
#endif
  if (o.quantization == "fp8" && o.device == "cpu") throw std::runtime_error("--quantization fp8: on GPUs alone, and this run is on the CPU");
  const bool gpu = o.device == "cuda";
  if (o.max_num_seqs == 0) o.max_num_seqs = o.max_num_batched_tokens > 0 ? std::min<int64_t>(gpu ? 256 : 64, o.max_num_batched_tokens) : gpu ? 256 : 64;
  if (o.max_num_batched_tokens == 0) o.max_num_batched_tokens = std::max<int64_t>(gpu ? 4096 : 512, o.max_num_seqs);
  return o;
}

bool on_gpu(const EngineOptions& options) { return options.device == "cuda"; }

bool looks_ahead(const EngineOptions& options) {
  if (options.topology.pipeline > 1) return false;
  return options.async_scheduling == "on" || (options.async_scheduling == "auto" && on_gpu(options));
}

int most_steps_in_flight(const EngineOptions& options) {
  if (looks_ahead(options)) return 2;
  return options.topology.pipeline > 1 && on_gpu(options) ? options.topology.pipeline + 1 : options.topology.pipeline;
}

int steps_in_flight(const EngineOptions& options, int64_t weight_bytes) {
  const int stages = options.topology.pipeline;
  return stages > 1 && weight_bytes > stages * kWeightsOfAGap ? stages : most_steps_in_flight(options);
}

DType weight_dtype(const EngineOptions& options) { return options.dtype == "float32" ? DType::f32 : DType::bf16; }
DType kv_dtype(const EngineOptions& options) {
  return options.kv_cache_dtype == "bfloat16" || on_gpu(options) ? DType::bf16 : DType::f32;
}

LlamaStageOptions stage_options(const EngineOptions& options, const ModelConfig& config) {
  LlamaStageOptions stage;
  stage.weights = {weight_dtype(options), options.quantization == "fp8"};
  stage.max_step_tokens = options.max_num_batched_tokens;
  stage.max_logit_rows = max_logit_rows(options);
  stage.max_sequences = options.max_num_seqs;
  stage.dmc = dmc_params(options, config);
  return stage;
}

DmcParams dmc_params(const EngineOptions& options, const ModelConfig& config) {
  DmcParams dmc = learned_dmc(config, weight_dtype(options));
  if (options.dmc == "off") {
    if (dmc.mode == DmcMode::learned) throw ModelError("--dmc off: this model was trained to compress and is not itself without");
    dmc.mode = DmcMode::off;
  }
  if (options.dmc_window >= 0) dmc.window = options.dmc_window;
  if (options.dmc_synthetic_cr > 0.0) {
    if (dmc.mode == DmcMode::learned) throw ModelError("--dmc-synthetic-cr: this model has learned decisions of its own");
    dmc.mode = DmcMode::synthetic;
    dmc.synthetic_cr = options.dmc_synthetic_cr;
    dmc.synthetic_seed = options.seed;
  }
  return dmc;
}

int64_t max_model_len(const EngineOptions& options, const ModelConfig& config) {
  if (options.max_model_len > config.max_position) {
    throw std::invalid_argument(
        fmt::format("--max-model-len {}: the model was trained for {} positions", options.max_model_len, config.max_position));
  }
  return options.max_model_len > 0 ? options.max_model_len : config.max_position;
}

int64_t max_logit_rows(const EngineOptions& options) { return std::max<int64_t>(options.max_num_seqs, 64); }

cache::KvCacheShape cache_shape(const EngineOptions& options, const ModelConfig& config, const parallel::ShardSpec& shard) {
  const DmcParams dmc = dmc_params(options, config);
  cache::KvCacheShape shape;
  shape.layers = shard.layers.size();
  shape.kv_heads = shard.kv_heads.size();
  shape.head_size = config.head_size;
  shape.sequences = options.max_num_seqs;
  shape.max_tokens = max_model_len(options, config);
  shape.page_slots = options.block_size;
  shape.window = dmc.window;
  shape.dmc = dmc.mode != DmcMode::off;
  shape.dtype = kv_dtype(options);
  shape.device = on_gpu(options);
  return shape;
}

void set_pages(cache::KvCacheShape& shape, int64_t budget) {
  const int64_t state = shape.state_bytes();
  shape.pages = std::min<int64_t>((budget - state) / (shape.page_bytes() + static_cast<int64_t>(sizeof(int32_t))), INT32_MAX);
  if (budget > state && shape.pages >= shape.heads()) return;
  throw std::runtime_error(fmt::format(
      "--kv-cache-memory-bytes: {} bytes hold {} pages beside {} bytes of tables and compression state for --max-num-seqs {}; {} layers "
      "and KV heads need a page each at least",
      std::max<int64_t>(budget, 0), std::max<int64_t>(shape.pages, 0), state, shape.sequences, shape.heads()));
}

int64_t cpu_cache_budget(const EngineOptions& options, const cache::KvCacheShape& shape, int ranks_on_host) {
  if (options.kv_cache_memory_bytes > 0) return options.kv_cache_memory_bytes;
  return std::min(kDefaultCacheBytes + shape.state_bytes(), free_host_memory() / 2 / ranks_on_host);
}

RankInfo rank_info(const cache::KvCacheShape& shape, const parallel::ShardSpec& shard) {
  RankInfo info;
  info.pages = shape.pages;
  info.page_bytes = shape.page_bytes();
  const int64_t ring = shape.dmc ? std::max(shape.window, 1) * (2 * shape.head_size + 1) * static_cast<int64_t>(sizeof(float)) : 0;
  info.row_state_bytes = static_cast<int64_t>(sizeof(cache::SnapshotHeader)) + shape.heads() * (ring + 2 * static_cast<int64_t>(sizeof(int32_t)));
  info.cache_state_bytes = shape.state_bytes();
  info.layer_begin = shard.layers.begin;
  info.layer_end = shard.layers.end;
  info.kv_head_begin = shard.kv_heads.begin;
  info.kv_head_end = shard.kv_heads.end;
  info.max_model_len = shape.max_tokens;
  gethostname(info.host, sizeof(info.host) - 1);
  return info;
}

int cpu_threads(const EngineOptions& options, int ranks_on_host) {
  if (options.cpu_threads > 0) return options.cpu_threads;
  cpu_set_t set;
  CPU_ZERO(&set);
  const int processors = sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
  return std::max(1, processors / std::max(1, ranks_on_host));
}

}  // namespace accrete::worker
