// Kernels that start before the kernel launched before them on the stream has ended ("programmatic dependent launch"), which hides a launch
// and lets them do at once what does not depend on it. Captured, the order becomes an edge of the same kind.
//
// Every thread of such a kernel calls wait_for_previous() before it reads or writes anything that the previous kernel writes or reads. When
// it returns, that kernel has ended and its writes are seen; whatever ran before that kernel has ended too if that one waited likewise or
// was launched in the usual way. The previous kernel says launch_next() where the next one may begin to take room on the multiprocessors; it
// begins when all blocks have said so or ended. In a kernel launched in the usual way both do nothing that matters.
#pragma once

#include "kernels/cuda.h"

namespace accrete {

__device__ inline void wait_for_previous() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
__device__ inline void launch_next() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }

struct LaunchShape {
  dim3 grid;
  unsigned threads = 0;
  size_t shared_bytes = 0;
  cudaStream_t stream = nullptr;
  bool early = true;  // false: in the usual way
};

template <class Args>
void launch_dependent(void (*kernel)(Args), const LaunchShape& shape, const Args& args) {
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t config{};
  config.gridDim = shape.grid;
  config.blockDim = dim3(shape.threads);
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.stream;
  config.attrs = &attribute;
  config.numAttrs = shape.early ? 1 : 0;
  ACCRETE_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, args));
}

}  // namespace accrete
