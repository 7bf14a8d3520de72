// A DeviceGroup over any Communicator (threads, MPI): copies to pinned host memory, waits for the stream, lets the communicator work, copies
// back. For several ranks on one GPU, for tests, and where NCCL is absent. Sums are made in float32 in rank order and rounded once.
// Not capturable. Builds with CUDA only.
#pragma once

#include <cstddef>
#include <memory>

#include "parallel/device_group.h"

namespace accrete::parallel {

// Longer messages go in pieces of this size; the same on all ranks, a multiple of 4.
constexpr size_t kStagingBytes = size_t{4} << 20;

// Takes (1 + ranks->size()) * staging_bytes of pinned memory. Lost ranks show as the communicator shows them.
std::unique_ptr<DeviceGroup> make_staged_group(std::unique_ptr<Communicator> ranks, size_t staging_bytes = kStagingBytes);

}  // namespace accrete::parallel
