// How the GPUs of a replica talk: NCCL where each rank has one of its own, else staged through host memory. Exists in builds with CUDA.
#pragma once

#include <memory>

#include "kernels/device/device_memory.h"
#include "parallel/communicator.h"
#include "parallel/device_group.h"
#include "worker/engine/engine_options.h"

namespace accrete::worker {

// How many ranks of `replica` have this GPU, by its UUID: processes may number GPUs differently, or each see one alone. Collective.
int ranks_on_gpu(parallel::Communicator& replica, const DeviceInfo& gpu);

// A group over `ranks`, which outlives it. Collective. `shared`: some GPU has several ranks.
std::unique_ptr<parallel::DeviceGroup> make_device_group(const EngineOptions& options, parallel::Communicator& ranks, bool shared);

}  // namespace accrete::worker
