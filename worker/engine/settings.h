// From flags to sizes: what EngineOptions mean for one model and one rank.
#pragma once

#include "cache/kv_cache_shape.h"
#include "kernels/dmc/dmc_update.h"
#include "worker/engine/engine_options.h"
#include "worker/engine/rank_executor.h"
#include "worker/model/llama_stage.h"

namespace accrete::worker {

// The options with the device's defaults in the place of what was left open ("auto", 0). Throws CudaError when --device cuda finds no GPU.
EngineOptions resolved(const EngineOptions& options);

DType weight_dtype(const EngineOptions& options);
DType kv_dtype(const EngineOptions& options);

// The model's own decisions, synthetic ones, or none. Throws ModelError when flag and model do not fit.
DmcParams dmc_params(const EngineOptions& options, const ModelConfig& config);

// --max-model-len or the model's; throws std::invalid_argument naming the flag when it is more than the model's.
int64_t max_model_len(const EngineOptions& options, const ModelConfig& config);

// Logit rows of a step at most.
int64_t max_logit_rows(const EngineOptions& options);

// Whether ranks compute on GPUs. Of resolved options, like all that follow.
bool on_gpu(const EngineOptions& options);
// Whether a step is planned while the one before is in flight: on GPUs, with one pipeline stage.
bool looks_ahead(const EngineOptions& options);
// Steps in flight at once, whose flights split the running sequences: two with lookahead, else one a pipeline stage. On GPUs one more covers the
// leader's work between a step's tokens and the next step, at the price of weights that are read once more a round: not where a rank's
// weights (the most of any, bytes) take longer to read than that work.
int steps_in_flight(const EngineOptions& options, int64_t weight_bytes);
// Whatever the weights.
int most_steps_in_flight(const EngineOptions& options);

LlamaStageOptions stage_options(const EngineOptions& options, const ModelConfig& config);

// This rank's cache but for its pages, and these within `budget` bytes for all of it. Throws std::runtime_error when not even one page a
// head fits.
cache::KvCacheShape cache_shape(const EngineOptions& options, const ModelConfig& config, const parallel::ShardSpec& shard);
void set_pages(cache::KvCacheShape& shape, int64_t budget);
// --kv-cache-memory-bytes, or half of the free host memory over the ranks of the host, at most 4 GiB for pages.
int64_t cpu_cache_budget(const EngineOptions& options, const cache::KvCacheShape& shape, int ranks_on_host);

// What RankInfo says of a cache and a shard.
RankInfo rank_info(const cache::KvCacheShape& shape, const parallel::ShardSpec& shard);

// Threads of a rank: --cpu-threads, or this process's processors over the ranks on the host.
int cpu_threads(const EngineOptions& options, int ranks_on_host);

}  // namespace accrete::worker
