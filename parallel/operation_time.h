// How long an operation of a group takes inside a CUDA graph, as a decode step has it. Builds with CUDA only.
#pragma once

#include <functional>

#include "kernels/stream.h"
#include "parallel/communicator.h"

namespace accrete::parallel {

struct TimedOperation {
  std::function<void()> enqueue;   // one operation on the stream
  std::function<void()> launched;  // after the launch of a graph: the group's watch or check
  int operations = 10;             // in a graph
  int launches = 11;
};

// Microseconds of one operation, the same on all ranks: the median over launches of the slowest rank. Device events around a graph of many
// operations, which follows the same graph on the stream: ranks leave that one together, so none counts its waiting for another that came
// late. Collective over `ranks`; waits for the stream.
double operation_us(Communicator& ranks, Stream& stream, const TimedOperation& operation);

}  // namespace accrete::parallel
