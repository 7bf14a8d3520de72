// PendingOperations: what a rank has enqueued on its device and not seen finished, oldest first, and since when the oldest one makes no
// progress. One thread adds, one other retires, any asks. A call into CUDA may wait for as long as the device hangs (a full queue of
// launches), so none is made under the lock: oldest() answers at once whatever the two others are stuck in. Builds with CUDA only.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "kernels/stream.h"

namespace accrete::parallel {

struct DeviceOperation {
  std::string name;
  uint64_t sequence = 0;  // which operation of this rank's group, from 1
  size_t bytes = 0;
};
// "all_reduce_sum (operation 7, 8192 bytes)"
std::string describe(const DeviceOperation& operation);

class PendingOperations {
 public:
  using Clock = std::chrono::steady_clock;

  PendingOperations() = default;
  ~PendingOperations();
  PendingOperations(const PendingOperations&) = delete;
  PendingOperations& operator=(const PendingOperations&) = delete;

  // Everything enqueued on the stream so far belongs to it. The stream is not being captured.
  void add(DeviceOperation operation, Stream& stream);
  // Drops what is done. Throws CudaError when the device reports one.
  void retire();

  struct Oldest {
    DeviceOperation operation;
    Clock::duration waited;  // since it became the oldest
  };
  std::optional<Oldest> oldest(Clock::time_point now) const;

 private:
  struct Waiting {
    DeviceOperation operation;
    void* event;  // cudaEvent_t
  };
  void* take_event();
  void* front_event() const;

  mutable std::mutex mutex_;  // of all below
  std::deque<Waiting> waiting_;
  std::vector<void*> spare_;  // events to use again
  Clock::time_point progress_{};
};

}  // namespace accrete::parallel
