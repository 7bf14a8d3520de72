// PendingOperations: what a rank has enqueued on its device and not seen finished, oldest first, and since when the oldest one makes no
// progress. Not thread-safe: its owner locks. Builds with CUDA only.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <deque>
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
std::string describe(const DeviceOperation& operation);

class PendingOperations {
 public:
  using Clock = std::chrono::steady_clock;

  PendingOperations() = default;
  ~PendingOperations();
  PendingOperations(const PendingOperations&) = delete;
  PendingOperations& operator=(const PendingOperations&) = delete;

  // Everything enqueued on the stream so far belongs to it. The stream is not being captured.
  void add(DeviceOperation operation, Stream& stream, Clock::time_point now);
  // Drops what is done.
  void retire(Clock::time_point now);
  const DeviceOperation* oldest() const { return waiting_.empty() ? nullptr : &waiting_.front().operation; }
  // How long the oldest one has been the oldest. Zero when nothing is pending.
  Clock::duration waited(Clock::time_point now) const { return waiting_.empty() ? Clock::duration::zero() : now - progress_; }

 private:
  struct Waiting {
    DeviceOperation operation;
    void* event;  // cudaEvent_t
  };
  std::deque<Waiting> waiting_;
  std::vector<void*> spare_;  // events to use again
  Clock::time_point progress_{};
};

}  // namespace accrete::parallel
