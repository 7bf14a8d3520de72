#include "worker/engine/gpu/device_groups.h"

#include <cstring>
#include <stdexcept>
#include <vector>

#include "parallel/host_group.h"
#include "parallel/nccl_group.h"
#include "parallel/staged_group.h"

namespace accrete::worker {

int ranks_on_gpu(parallel::Communicator& replica, const char* host, int gpu) {
  struct Card {
    char host[64] = {};
    int gpu = 0;
  };
  Card mine;
  std::strncpy(mine.host, host, sizeof(mine.host) - 1);
  mine.gpu = gpu;
  std::vector<Card> all(replica.size());
  replica.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  int count = 0;
  for (const Card& card : all) count += card.gpu == gpu && std::strcmp(card.host, mine.host) == 0 ? 1 : 0;
  return count;
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
