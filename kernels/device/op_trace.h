// OpTrace: how long each operation of a Backend or a group of ranks takes on the GPU, by name, from events around every call. For breakdowns: small kernels look
// longer than they are in a row or a graph. Owned by whoever points Stream::trace at it; not captured. In builds with CUDA.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/backend.h"
#include "kernels/device/device_memory.h"

namespace accrete {

class OpTrace {
 public:
  void begin(const std::string& name, Stream& stream);
  void end(Stream& stream);
  // Milliseconds by name since the last call, longest first. Waits for what was begun.
  std::vector<std::pair<std::string, double>> take();

 private:
  struct Span {
    std::string name;
    DeviceEvent begin, end;
  };
  std::vector<std::unique_ptr<Span>> spans_;
  size_t used_ = 0;
};

// An operation from here to the end of the scope, where the stream has a trace.
class OpSpan {
 public:
  OpSpan(const std::string& name, Stream& stream) : stream_(stream) {
    if (stream_.trace) stream_.trace->begin(name, stream_);
  }
  ~OpSpan() {
    if (stream_.trace) stream_.trace->end(stream_);
  }
  OpSpan(const OpSpan&) = delete;
  OpSpan& operator=(const OpSpan&) = delete;

 private:
  Stream& stream_;
};

// cuda_backend() with every operation traced, where the stream has a trace.
const Backend& traced_cuda_backend();

}  // namespace accrete
