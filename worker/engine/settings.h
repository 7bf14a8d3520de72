// From flags to sizes: what EngineOptions mean for one model and one rank.
#pragma once

#include "cache/kv_cache.h"
#include "kernels/dmc/dmc_update.h"
#include "worker/engine/engine_options.h"
#include "worker/model/tensor_source.h"

namespace accrete::worker {

DType weight_dtype(const EngineOptions& options);
DType kv_dtype(const EngineOptions& options);

// The model's own decisions, synthetic ones, or none. Throws ModelError when flag and model do not fit.
DmcParams dmc_params(const EngineOptions& options, const ModelConfig& config);

// --max-model-len or the model's; throws std::invalid_argument naming the flag when it is more than the model's.
int64_t max_model_len(const EngineOptions& options, const ModelConfig& config);

// Logit rows of a step at most.
int64_t max_logit_rows(const EngineOptions& options);

// This rank's cache: --kv-cache-memory-bytes, or half of the free host memory over the ranks of the host, at most 4 GiB. Throws
// std::runtime_error when not even one page a head fits.
cache::KvCacheShape cache_shape(const EngineOptions& options, const ModelConfig& config, const parallel::ShardSpec& shard, int ranks_on_host);

// Threads of a rank: --cpu-threads, or this process's processors over the ranks on the host.
int cpu_threads(const EngineOptions& options, int ranks_on_host);

}  // namespace accrete::worker
