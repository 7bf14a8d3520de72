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

void PendingOperations::add(DeviceOperation operation, Stream& stream, Clock::time_point now) {
  if (spare_.empty()) {
    cudaEvent_t made = nullptr;
    ACCRETE_CUDA_CHECK(cudaEventCreateWithFlags(&made, cudaEventDisableTiming));
    spare_.push_back(made);
  }
  void* event = spare_.back();
  ACCRETE_CUDA_CHECK(cudaEventRecord(static_cast<cudaEvent_t>(event), static_cast<cudaStream_t>(stream.cuda)));
  spare_.pop_back();
  if (waiting_.empty()) progress_ = now;
  waiting_.push_back({std::move(operation), event});
}

void PendingOperations::retire(Clock::time_point now) {
  while (!waiting_.empty()) {
    const cudaError_t result = cudaEventQuery(static_cast<cudaEvent_t>(waiting_.front().event));
    if (result == cudaErrorNotReady) return;
    ACCRETE_CUDA_CHECK(result);
    spare_.push_back(waiting_.front().event);
    waiting_.pop_front();
    progress_ = now;
  }
}

}  // namespace accrete::parallel
