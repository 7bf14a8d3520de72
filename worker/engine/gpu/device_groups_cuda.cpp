#include "worker/engine/gpu/device_groups.h"

#include <algorithm>
#include <array>
#include <stdexcept>
#include <vector>

#include "parallel/host_group.h"
#include "parallel/nccl_group.h"
#include "parallel/staged_group.h"

namespace accrete::worker {

int ranks_on_gpu(parallel::Communicator& replica, const DeviceInfo& gpu) {
  std::vector<std::array<char, 16>> all(replica.size());
  replica.all_gather(std::as_bytes(std::span(&gpu.uuid, 1)), std::as_writable_bytes(std::span(all)));
  return static_cast<int>(std::count(all.begin(), all.end(), gpu.uuid));
}

std::unique_ptr<parallel::DeviceGroup> make_device_group(const EngineOptions& options, parallel::Communicator& ranks, bool shared) {
  if (ranks.size() == 1) return parallel::make_host_group(ranks);  // nothing is ever moved
  const bool nccl = options.device_group == "nccl" || (options.device_group == "auto" && !shared);
#if defined(ACCRETE_NCCL)
  if (nccl) return parallel::make_nccl_group(ranks);
#else
  if (nccl && options.device_group == "nccl") throw std::runtime_error("--device-group nccl: this build found no NCCL; use staged");
#endif
  return parallel::make_staged_group(ranks.split(0, ranks.rank()));
}

}  // namespace accrete::worker
