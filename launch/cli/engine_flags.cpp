#include "launch/cli/engine_flags.h"

#include <fmt/format.h>

#include "launch/cli/command_line.h"
#include "launch/inspect/shard_plan.h"
#include "launch/model/default_model.h"
#include "worker/model/tensor_source.h"

namespace accrete::launch {
namespace {

void add_model_flags(CLI::App& app, worker::EngineOptions& o) {
  app.add_option("model,--model", o.model,
                 "Hugging Face directory, .gguf file, or with --load-format dummy a shape (llama-2-7b, llama-2-13b, llama-2-70b, llama-3-8b, llama-3-70b, "
                 "tiny); none: SmolLM2-135M-Instruct");
  app.add_option("--served-model-name", o.served_model_name, "name in the API; default: from the path");
  app.add_option("--load-format", o.load_format, "auto, gguf or dummy (random weights)")
      ->check(CLI::IsMember({"auto", "gguf", "dummy"}))->capture_default_str();
  app.add_option("--adapter", o.adapter, "PEFT LoRA directory, merged while loading")->type_name("DIR");
  app.add_option("--dtype", o.dtype, "weights: auto (bfloat16), bfloat16 or float32")
      ->check(CLI::IsMember({"auto", "bfloat16", "float32"}))->capture_default_str();
  app.add_option("--quantization", o.quantization, "fp8: the layers' weights as e4m3 with a factor an output, made while loading (GPUs)")
      ->check(CLI::IsMember({"fp8"}));
  app.add_option("--kv-cache-dtype", o.kv_cache_dtype, "caches: auto (float32 on the CPU, bfloat16 on GPUs), bfloat16 or float32")
      ->check(CLI::IsMember({"auto", "bfloat16", "float32"}))->capture_default_str();
  app.add_option("--device", o.device, "auto, cpu or cuda")->check(CLI::IsMember({"auto", "cpu", "cuda"}))->capture_default_str();
  app.add_option("--seed", o.seed, "of dummy weights and of requests that bring none")->capture_default_str();
}

void add_shape_flags(CLI::App& app, worker::EngineOptions& o) {
  const CLI::Range ranks(1, 4096);
  app.add_option("--tensor-parallel-size", o.topology.tensor, "-tp T: shards of every layer")->check(ranks)->capture_default_str();
  app.add_option("--pipeline-parallel-size", o.topology.pipeline, "-pp P: stages of layers")->check(ranks)->capture_default_str();
  app.add_option("--data-parallel-size", o.topology.data, "-dp R: replicas")->check(ranks)->capture_default_str();
  app.add_option("--max-model-len", o.max_model_len, "longest prompt + answer in tokens; 0: the model's")
      ->check(CLI::Range(0, 1 << 28))->capture_default_str();
  app.add_option("--max-num-seqs", o.max_num_seqs, "sequences running at once; 0: 64 on the CPU, 256 on GPUs")
      ->check(CLI::Range(0, 1 << 20))->capture_default_str();
  app.add_option("--max-num-batched-tokens", o.max_num_batched_tokens, "tokens of one iteration; 0: 512 on the CPU, 4096 on GPUs")
      ->check(CLI::Range(0, 1 << 24))->capture_default_str();
  app.add_option("--async-scheduling", o.async_scheduling, "plan a step while the one before is in flight: auto (on GPUs), on or off")
      ->check(CLI::IsMember({"auto", "on", "off"}))->capture_default_str();
  app.add_option("--base-gpu-id", o.base_gpu_id, "GPU of the first rank on a host; the next ranks take the next ones")
      ->check(CLI::Range(0, 4095))->capture_default_str();
  app.add_flag("--enforce-eager", o.enforce_eager, "no CUDA graphs");
  app.add_flag("!--skip-gemm-tuning", o.tune_products, "GPUs: do not time the algorithms of matrix products at start-up");
  app.add_option("--all-reduce", o.all_reduce, "sums over shards: group, by --device-group; one-shot, up to some MB by one kernel over the GPUs of a host; auto, that where it can")
      ->check(CLI::IsMember({"auto", "group", "one-shot"}))->capture_default_str();
  app.add_option("--device-group", o.device_group, "how the GPUs of a replica talk: auto, nccl, or staged through host memory")
      ->check(CLI::IsMember({"auto", "nccl", "staged"}))->capture_default_str();
  app.add_option("--cpu-threads", o.cpu_threads, "threads of a rank; 0: cores / ranks on this host")
      ->check(CLI::Range(0, 4096))->capture_default_str();
}

void add_cache_flags(CLI::App& app, worker::EngineOptions& o) {
  app.add_option("--block-size", o.block_size, "slots in a page")->check(CLI::Range(1, 1024))->capture_default_str();
  app.add_option("--kv-cache-memory-bytes", o.kv_cache_memory_bytes, "page arena of a rank, e.g. 512MiB; 0: a share of free memory")
      ->transform(CLI::AsSizeValue(false))->capture_default_str();
  app.add_option("--gpu-memory-utilization", o.gpu_memory_utilization, "share of the device's memory that may be used")
      ->check(CLI::Range(0.01, 1.0))->capture_default_str();
  app.add_option("--swap-space", o.swap_space_gib, "GiB of host memory for preempted caches; 0: recompute")
      ->check(CLI::Range(0.0, 1e6))->capture_default_str();
  app.add_option("--dmc", o.dmc, "auto: compress when the model was trained for it; off")
      ->check(CLI::IsMember({"auto", "off"}))->capture_default_str();
  app.add_option("--dmc-window", o.dmc_window, "newest tokens a slot averages; 0: all, -1: the model's")
      ->check(CLI::Range(-1, 4096))->capture_default_str();
  app.add_option("--dmc-synthetic-cr", o.dmc_synthetic_cr,
                 "forced decisions at this compression ratio, for benchmarks only: the text is not the model's")
      ->check(CLI::Range(0.0, 1024.0))->capture_default_str();
}

// More shards than KV heads or more stages than layers: told before any process is started or weight is read.
void check_shape(const worker::EngineOptions& o) {
  if (o.topology.replica_ranks() == 1) return;
  const auto source = worker::open_model(o.model, {.load_format = o.load_format, .adapter = o.adapter, .seed = o.seed});
  const ShardPlan plan = plan_shards(source->config(), o.topology, DType::bf16, DType::f32);
  if (!plan.error.empty()) throw UsageError(plan.error);
}

}  // namespace

void add_engine_flags(CLI::App& app, EngineFlags& flags) {
  add_model_flags(app, flags.options);
  add_shape_flags(app, flags.options);
  add_cache_flags(app, flags.options);
}

void finish_engine_flags(EngineFlags& flags) {
  worker::EngineOptions& o = flags.options;
  if (o.model.empty() && o.load_format == "dummy") {
    throw UsageError("--load-format dummy needs a shape as MODEL: llama-2-7b, llama-2-13b, llama-2-70b, llama-3-8b, llama-3-70b or tiny");
  }
  const bool use_default = o.model.empty();
  if (use_default) o.model = kDefaultModelName;  // so that the other flags are checked before anything is fetched
  if (const std::string wrong = worker::check_options(o); !wrong.empty()) throw UsageError(wrong);
  if (use_default) {
    o.model = fetch_default_model();
    const bool forced = o.dmc_synthetic_cr > 0;  // a model that decides by itself refuses forced decisions
    if (o.adapter.empty() && o.dmc == "auto" && !forced) o.adapter = default_adapter();
    if (o.served_model_name.empty()) o.served_model_name = kDefaultModelName;
  }
  check_shape(o);
}

std::vector<std::string> engine_arguments(const worker::EngineOptions& o) {
  const worker::EngineOptions usual;
  std::vector<std::string> arguments{"--model=" + o.model};
  const auto add = [&](const char* name, const auto& value, const auto& default_value) {
    if (value != default_value) arguments.push_back(fmt::format("--{}={}", name, value));
  };
  add("served-model-name", o.served_model_name, usual.served_model_name);
  add("load-format", o.load_format, usual.load_format);
  add("adapter", o.adapter, usual.adapter);
  add("dtype", o.dtype, usual.dtype);
  add("quantization", o.quantization, usual.quantization);
  add("kv-cache-dtype", o.kv_cache_dtype, usual.kv_cache_dtype);
  add("device", o.device, usual.device);
  add("seed", o.seed, usual.seed);
  add("tensor-parallel-size", o.topology.tensor, usual.topology.tensor);
  add("pipeline-parallel-size", o.topology.pipeline, usual.topology.pipeline);
  add("data-parallel-size", o.topology.data, usual.topology.data);
  add("max-model-len", o.max_model_len, usual.max_model_len);
  add("max-num-seqs", o.max_num_seqs, usual.max_num_seqs);
  add("max-num-batched-tokens", o.max_num_batched_tokens, usual.max_num_batched_tokens);
  add("cpu-threads", o.cpu_threads, usual.cpu_threads);
  add("async-scheduling", o.async_scheduling, usual.async_scheduling);
  add("base-gpu-id", o.base_gpu_id, usual.base_gpu_id);
  add("enforce-eager", o.enforce_eager, usual.enforce_eager);
  if (!o.tune_products) arguments.push_back("--skip-gemm-tuning");
  add("all-reduce", o.all_reduce, usual.all_reduce);
  add("device-group", o.device_group, usual.device_group);
  add("block-size", o.block_size, usual.block_size);
  add("kv-cache-memory-bytes", o.kv_cache_memory_bytes, usual.kv_cache_memory_bytes);
  add("gpu-memory-utilization", o.gpu_memory_utilization, usual.gpu_memory_utilization);
  add("swap-space", o.swap_space_gib, usual.swap_space_gib);
  add("dmc", o.dmc, usual.dmc);
  add("dmc-window", o.dmc_window, usual.dmc_window);
  add("dmc-synthetic-cr", o.dmc_synthetic_cr, usual.dmc_synthetic_cr);
  return arguments;
}

}  // namespace accrete::launch
