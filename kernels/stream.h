// Stream: where an op runs. On the CPU it names the thread pool, on CUDA the cudaStream_t. Ops enqueue; they never allocate.
#pragma once

namespace accrete {

class GemmPlans;
class OpTrace;
class ThreadPool;

struct Stream {
  ThreadPool* pool = nullptr;  // CPU ops; never null there
  void* cuda = nullptr;        // cudaStream_t of CUDA ops
  OpTrace* trace = nullptr;    // of CUDA ops that are timed one by one (kernels/device/op_trace.h); may be null
  GemmPlans* gemm = nullptr;   // of CUDA ops' matrix products, see kernels/gemm/gemm_plans.h; linear_cuda needs it
};

}  // namespace accrete
