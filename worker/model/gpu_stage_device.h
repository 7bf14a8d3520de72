// The StageDevice of one GPU: memory there, weights uploaded through a bounded number of pinned buffers while they are read, rounded to fp8
// or made of hashes (dummy weights) on the way. Exists in builds with CUDA.
#pragma once

#include <memory>

#include "kernels/device/device_memory.h"
#include "kernels/device/op_trace.h"
#include "kernels/gemm/gemm_plans.h"
#include "worker/model/stage_device.h"

namespace accrete::worker {

class GpuStageDevice : public StageDevice {
 public:
  // GPU `index` becomes the calling thread's. `readers` threads read weights. Throws CudaError.
  GpuStageDevice(int index, int readers);
  // Operations are timed from now on; not to be captured in graphs.
  void start_trace();
  OpTrace& trace() { return *trace_; }

  const DeviceInfo& info() const { return info_; }
  GemmPlans& gemm_plans() { return *plans_; }

  const Backend& backend() const override { return trace_ ? traced_cuda_backend() : cuda_backend(); }
  Stream& stream() override { return stream_->stream(); }
  DType activation_dtype() const override { return DType::bf16; }
  int multiprocessors() const override { return info_.multiprocessors; }
  DeviceBytes allocate(int64_t bytes) override;
  void randomize(const AnyView<2>& values) override;
  void upload(void* to, const void* from, int64_t bytes) override;
  void load(const ShardReader& reader, std::byte* block, const LoadProgress& progress) override;

 private:
  DeviceInfo info_;  // first: makes the device current
  int readers_;
  std::unique_ptr<DeviceStream> stream_;
  std::unique_ptr<GemmPlans> plans_;
  std::unique_ptr<OpTrace> trace_;
};

}  // namespace accrete::worker
