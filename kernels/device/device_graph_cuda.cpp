#include "kernels/device/device_graph.h"

#include <utility>

#include "kernels/cuda.h"

namespace accrete {
namespace {

cudaStream_t cuda_of(Stream& stream) { return static_cast<cudaStream_t>(stream.cuda); }

struct Captured {
  cudaGraph_t graph = nullptr;
  ~Captured() {
    if (graph) cudaGraphDestroy(graph);
  }
};

}  // namespace

DeviceGraph::DeviceGraph(Stream& stream, const std::function<void()>& enqueue) {
  Captured captured;
  ACCRETE_CUDA_CHECK(cudaStreamBeginCapture(cuda_of(stream), cudaStreamCaptureModeThreadLocal));
  try {
    enqueue();
  } catch (...) {
    cudaStreamEndCapture(cuda_of(stream), &captured.graph);
    cudaGetLastError();  // the capture's own error is not one of the next call
    throw;
  }
  ACCRETE_CUDA_CHECK(cudaStreamEndCapture(cuda_of(stream), &captured.graph));
  ACCRETE_CUDA_CHECK(cudaGraphGetNodes(captured.graph, nullptr, &nodes_));
  cudaGraphExec_t executable = nullptr;
  ACCRETE_CUDA_CHECK(cudaGraphInstantiate(&executable, captured.graph, 0));
  executable_ = executable;
  ACCRETE_CUDA_CHECK(cudaGraphUpload(executable, cuda_of(stream)));
}

DeviceGraph::~DeviceGraph() {
  if (executable_) cudaGraphExecDestroy(static_cast<cudaGraphExec_t>(executable_));
}
DeviceGraph::DeviceGraph(DeviceGraph&& other) noexcept
    : executable_(std::exchange(other.executable_, nullptr)), nodes_(std::exchange(other.nodes_, 0)) {}
DeviceGraph& DeviceGraph::operator=(DeviceGraph&& other) noexcept {
  std::swap(executable_, other.executable_);
  std::swap(nodes_, other.nodes_);
  return *this;
}

void DeviceGraph::launch(Stream& stream) {
  ACCRETE_CUDA_CHECK(cudaGraphLaunch(static_cast<cudaGraphExec_t>(executable_), cuda_of(stream)));
}

}  // namespace accrete
