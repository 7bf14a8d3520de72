#if defined(ACCRETE_CUDA)
#include "tests/parallel/device_program.h"

#include <fmt/format.h>

#include "parallel/nccl_group.h"

namespace accrete::parallel {

std::unique_ptr<DeviceGroup> nccl_group_of(Communicator& world, std::chrono::milliseconds timeout) {
#if defined(ACCRETE_NCCL)
  return make_nccl_group(world, {timeout, {}});
#else
  throw CommError(fmt::format("rank {}: this build has no NCCL; time limit {} ms", world.rank(), timeout.count()));
#endif
}

}  // namespace accrete::parallel
#endif
