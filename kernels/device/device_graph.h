// DeviceGraph: work captured from a stream once and replayed with one launch. Owned by the thread that enqueues steps; what it names
// (memory, GEMM plans, communicators) must outlive it. Exists in builds with CUDA; errors throw CudaError.
#pragma once

#include <cstddef>
#include <functional>

#include "kernels/stream.h"

namespace accrete {

class DeviceGraph {
 public:
  DeviceGraph() = default;
  // Captures what `enqueue` puts on the stream (capture mode: thread-local) and instantiates it; nothing runs yet. What enqueue throws
  // ends the capture and passes on.
  DeviceGraph(Stream& stream, const std::function<void()>& enqueue);
  ~DeviceGraph();
  DeviceGraph(DeviceGraph&& other) noexcept;
  DeviceGraph& operator=(DeviceGraph&& other) noexcept;

  bool empty() const { return !executable_; }
  size_t nodes() const { return nodes_; }
  void launch(Stream& stream);

 private:
  void* executable_ = nullptr;  // cudaGraphExec_t
  size_t nodes_ = 0;
};

}  // namespace accrete
