#include "parallel/device_pending.h"

#include <fmt/format.h>

#include <utility>

#include "kernels/cuda.h"

namespace accrete::parallel {

std::string describe(const DeviceOperation& operation) {
  return fmt::format("{} (operation {}, {} bytes)", operation.name, operation.sequence, operation.bytes);
}

PendingOperations::~PendingOperations() {
  for (const Waiting& waiting : waiting_) spare_.push_back(waiting.event);
  for (void* event : spare_) cudaEventDestroy(static_cast<cudaEvent_t>(event));
}

void* PendingOperations::take_event() {
  {
    const std::lock_guard lock(mutex_);
    if (!spare_.empty()) {
      void* event = spare_.back();
      spare_.pop_back();
      return event;
    }
  }
  cudaEvent_t made = nullptr;
  ACCRETE_CUDA_CHECK(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
  return made;
}

void PendingOperations::add(DeviceOperation operation, Stream& stream) {
  void* event = take_event();
  const cudaError_t recorded = cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream.cuda));
  const std::lock_guard lock(mutex_);
  if (recorded != cudaSuccess) spare_.push_back(event);
  ACCRETE_CUDA_CHECK(recorded);
  if (waiting_.empty()) progress_ = Clock::now();
  waiting_.push_back({std::move(operation), event});
}

void* PendingOperations::front_event() const {
  const std::lock_guard lock(mutex_);
  return waiting_.empty() ? nullptr : waiting_.front().event;
}

void PendingOperations::retire() {
  while (void* event = front_event()) {  // stays the front: only this thread removes it
    const cudaError_t result = cudaEventQuery(static_cast<cudaEvent_t>(event));
    if (result == cudaErrorNotReady) return;
    ACCRETE_CUDA_CHECK(result);
    const std::lock_guard lock(mutex_);
    spare_.push_back(event);
    waiting_.pop_front();
    progress_ = Clock::now();
  }
}

std::optional<PendingOperations::Oldest> PendingOperations::oldest(Clock::time_point now) const {
  const std::lock_guard lock(mutex_);
  if (waiting_.empty()) return std::nullopt;
  return Oldest{waiting_.front().operation, now - progress_};
}

}  // namespace accrete::parallel
