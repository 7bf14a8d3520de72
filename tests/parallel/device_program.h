// The parts of device_group_main.cpp, the program that tests groups of device memory under mpirun.
#pragma once

#include <chrono>
#include <memory>
#include <string>

#include "kernels/stream.h"
#include "parallel/device_group.h"
#include "parallel/one_shot_group.h"

namespace accrete::parallel {

struct ProgramOptions {
  std::string group = "all";  // nccl, staged, one-shot
  std::string fail;           // kill, hang
  bool in_graph = false;      // the operation that fails
  bool bench = false;
  std::chrono::milliseconds timeout{30'000};
};

// Throws CommError where this build has no NCCL.
std::unique_ptr<DeviceGroup> nccl_group_of(Communicator& world, std::chrono::milliseconds timeout);

// Rank 1 dies or hangs while the others are in an operation. They print what they were told and end with exit code 1 when that names
// themselves and the operation, in time; with 3 when it does not. Does not return.
[[noreturn]] void fail_as_told(Communicator& world, const ProgramOptions& options, Stream& stream);

// Collective; rank 0 prints a JSON line for each size and way.
void bench(Communicator& world, Stream& stream);

}  // namespace accrete::parallel
