#include "worker/engine/rank_executor.h"

#include "worker/engine/cpu_executor.h"
#include "worker/engine/settings.h"
#if defined(ACCRETE_CUDA)
#include "worker/engine/gpu/gpu_executor.h"
#endif

namespace accrete::worker {

std::unique_ptr<RankExecutor> make_executor(const TensorSource& source, const EngineOptions& options, const RankGroups& groups) {
#if defined(ACCRETE_CUDA)
  if (on_gpu(options)) return std::make_unique<GpuExecutor>(source, options, groups);
#endif
  return std::make_unique<CpuExecutor>(source, options, groups);
}

parallel::ShardSpec shard_of(const ModelConfig& config, const RankGroups& groups) {
  const parallel::Place place = parallel::place_of(groups.topology, groups.replica.rank());
  const parallel::ShardResult result = parallel::shard(groups.topology, place, network_shape(config));
  if (!result.error.empty()) throw std::invalid_argument(result.error);
  return result.spec;
}

}  // namespace accrete::worker
