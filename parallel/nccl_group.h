// A DeviceGroup over NCCL. Present where the build found nccl.h and libnccl (ACCRETE_NCCL). NCCL's own environment (NCCL_*) is respected.
// A peer that is lost never hangs this rank: a watchdog thread looks at NCCL's errors and at operations that do not finish, breaks the group
// (ncclCommAbort, which ends its kernels on the device) and keeps a message for check().
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "parallel/device_group.h"

namespace accrete::parallel {

struct NcclOptions {
  // How long an operation may take once those before it are done, and how long the group may take to form.
  std::chrono::milliseconds timeout{30'000};
  // Called once, from any thread, when the group breaks: for an owner whose step thread may be waiting for a stream. May be empty; must
  // not call the group.
  std::function<void(const std::string&)> broken;
};

#if defined(ACCRETE_NCCL)
// Collective over `ranks`, which carries the group's id and is not kept. Each rank has made its GPU current. Throws CommError when the
// group does not form within the timeout. CUDA graphs with captured operations are destroyed before the group.
std::unique_ptr<DeviceGroup> make_nccl_group(Communicator& ranks, NcclOptions options = {});
#endif

}  // namespace accrete::parallel
