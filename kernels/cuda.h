// CUDA errors as exceptions. Included by .cu files and by the few .cpp that hold device memory; needs the CUDA headers.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

namespace accrete {

class CudaError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws CudaError with what failed, where, and what to do about it.
inline void check_cuda(cudaError_t result, const char* what, const char* file, int line) {
  if (result == cudaSuccess) return;
  const char* advice = "run again under compute-sanitizer to find the first bad access";
  if (result == cudaErrorMemoryAllocation) advice = "lower --gpu-memory-utilization or --max-num-seqs";
  if (result == cudaErrorNoKernelImageForDevice) advice = "this build is for compute capability 9.0 (Hopper); use --device cpu";
  if (result == cudaErrorNoDevice || result == cudaErrorInsufficientDriver) advice = "check nvidia-smi, or use --device cpu";
  throw CudaError(std::string(what) + " failed at " + file + ":" + std::to_string(line) + ": " +
                  cudaGetErrorString(result) + " (" + cudaGetErrorName(result) + "); " + advice);
}

}  // namespace accrete

#define ACCRETE_CUDA_CHECK(call) ::accrete::check_cuda((call), #call, __FILE__, __LINE__)
