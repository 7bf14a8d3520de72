// DeviceGroup: a group of ranks that move device memory. Every operation is enqueued on the stream given and is entered by all ranks that
// take part, in the same order; a group is used by one thread (its rank's step thread), on the device that was current when it was made.
// Implementations: NCCL (nccl_group.h), staged through pinned host memory over any Communicator (staged_group.h), and for ranks that compute
// on the CPU the Communicator itself (host_group.h). Spans of bytes are memory of the device that computes.
#pragma once

#include <cstddef>
#include <span>
#include <string>

#include "kernels/stream.h"
#include "kernels/view.h"
#include "parallel/communicator.h"

namespace accrete::parallel {

class DeviceGroup {
 public:
  virtual ~DeviceGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;
  // Whether the operations may be captured into a CUDA graph (cudaStreamCaptureModeThreadLocal or Relaxed). If not, they wait for the
  // stream on the host.
  virtual bool capturable() const = 0;

  // In place, contiguous, float32 or bfloat16; all ranks hold the same bits afterwards.
  virtual void all_reduce_sum(const AnyView<1>& values, Stream& stream) = 0;  // [n]
  // everyone[r * mine.size() ...] = rank r's mine; mine may lie at its own place in everyone.
  virtual void all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone, Stream& stream) = 0;
  // The same on rank `root` alone; elsewhere everyone is empty.
  virtual void gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root, Stream& stream) = 0;
  // Rank root's bytes to all, in place.
  virtual void broadcast(std::span<std::byte> bytes, int root, Stream& stream) = 0;
  // Messages, in order for each pair of ranks; both sides name the same size. The stream may wait for the other side, so a ring of ranks
  // that all send first can wait for ever (until the group's timeout).
  virtual void send(std::span<const std::byte> message, int to, Stream& stream) = 0;
  virtual void recv(std::span<std::byte> message, int from, Stream& stream) = 0;

  // After a launch of a graph with captured operations, which the group cannot see: what was enqueued on the stream so far has to be done
  // within the group's timeout. `what` names it in errors.
  virtual void watch(const std::string& what, Stream& stream) = 0;
  // Throws CommError naming rank and operation when the group is broken. Call it after waiting for a stream: a broken group's operations
  // end without their result. Operations on a broken group throw the same.
  virtual void check() = 0;
  // This rank takes part no more; from any thread. What waits on the device ends without a result, and the other ranks' groups break.
  virtual void abort() = 0;
};

}  // namespace accrete::parallel
