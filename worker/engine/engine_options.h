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
  std::string kv_cache_dtype = "auto";  // auto | bfloat16 | float32 (auto: float32 on the CPU)
  std::string device = "auto";          // auto | cpu | cuda
  parallel::Topology topology;          // data: replicas of this job
  int64_t max_model_len = 0;            // 0: the model's
  int64_t max_num_seqs = 64;
  int64_t max_num_batched_tokens = 512;
  int32_t block_size = 16;              // slots in a page
  int64_t kv_cache_memory_bytes = 0;    // a rank's; 0: a fraction of free host memory (CPU: at most 4 GiB a rank)
  double gpu_memory_utilization = 0.9;
  double swap_space_gib = 0.0;          // host memory for preempted caches, a rank's share; 0: recompute
  std::string dmc = "auto";             // auto | off
  int dmc_window = -1;                  // -1: the model's
  double dmc_synthetic_cr = 0.0;        // > 0: forced decisions
  uint64_t seed = 0;
  int cpu_threads = 0;                  // a rank's; 0: cores / ranks on this host
};

// Empty when the options fit together; else what is wrong, naming the flag.
std::string check_options(const EngineOptions& options);

}  // namespace accrete::worker
