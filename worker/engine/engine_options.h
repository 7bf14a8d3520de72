// EngineOptions: everything a replica is told, once, by main(). Flag names are vLLM's (docs/cli.md).
#pragma once

#include <cstdint>
#include <string>

#include "parallel/topology.h"

namespace accrete::worker {

struct EngineOptions {
  std::string model;              // path, .gguf or dummy shape
  std::string served_model_name;  // empty: derived from the path
  std::string load_format = "auto";
  std::string adapter;
  std::string dtype = "auto";           // auto | bfloat16 | float32 (auto: bfloat16)
  std::string quantization;             // fp8: weights of the layers rounded while loading; empty: none
  std::string kv_cache_dtype = "auto";  // auto | bfloat16 | float32 (auto: float32 on the CPU, bfloat16 on GPUs)
  std::string device = "auto";          // auto | cpu | cuda
  parallel::Topology topology;          // data: replicas of this job
  int64_t max_model_len = 0;            // 0: the model's
  int64_t max_num_seqs = 0;             // 0: 64 on the CPU, 256 on GPUs
  int64_t max_num_batched_tokens = 0;   // 0: 512 on the CPU, 4096 on GPUs, at least max_num_seqs
  int32_t block_size = 16;              // slots in a page
  int64_t kv_cache_memory_bytes = 0;    // a rank's; 0: what gpu_memory_utilization leaves, on the CPU half of the free memory up to 4 GiB
  double gpu_memory_utilization = 0.9;
  double swap_space_gib = 0.0;          // host memory for preempted caches, a rank's share; 0: recompute
  std::string dmc = "auto";             // auto | off
  int dmc_window = -1;                  // -1: the model's
  double dmc_synthetic_cr = 0.0;        // > 0: forced decisions
  uint64_t seed = 0;
  int cpu_threads = 0;                  // a rank's; 0: cores / ranks on this host
  int base_gpu_id = 0;                  // the GPU of a host's first rank; the next ranks take the next ones, after the last again the first
  bool enforce_eager = false;           // GPUs: no CUDA graphs
  std::string async_scheduling = "auto";  // auto | on | off: plan a step while the one before is in flight (auto: on GPUs)
  bool tune_products = true;            // GPUs: time the algorithms of matrix products at start-up
  bool trace_operations = false;        // benchmarks: GPUs time each operation, without graphs
  std::string all_reduce = "auto";      // auto | group | one-shot: sums of up to some MB over the tensor group by one kernel over CUDA IPC (one host)
  std::string device_group = "auto";    // auto | nccl | staged: how GPUs of a replica talk (auto: nccl when each rank has its own)

  bool operator==(const EngineOptions&) const = default;
};

// Empty when the options fit together; else what is wrong, naming the flag.
std::string check_options(const EngineOptions& options);

}  // namespace accrete::worker
