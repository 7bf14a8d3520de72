// OneShotGroup: ranks of one host whose GPUs see each other's memory (CUDA IPC), for sums of a decode step that are too small for NCCL's
// bandwidth to matter (kernels/all_reduce/one_shot.h). Owns this rank's staging memory and flags, and maps the other ranks'. Used by one
// thread (its rank's step thread), on the device that was current when it was made, with one stream at a time; abort from any thread.
// Operations may be captured into CUDA graphs, in any capture mode. Nothing waits for ever: a kernel whose peer does not come gives up
// after the timeout, and the whole group is broken from then on. Builds with CUDA only.
#pragma once

#include <chrono>
#include <cstddef>
#include <memory>

#include "kernels/all_reduce/one_shot.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/stream.h"
#include "parallel/communicator.h"

namespace accrete::parallel {

struct OneShotOptions {
  // Bytes of one operation, the same on all ranks, a multiple of 16; longer ones go in pieces, one launch each. A row of a norm must fit.
  size_t capacity = size_t{1} << 20;
  std::chrono::milliseconds timeout{30'000};
  // Nothing but this group's ranks computes on their GPUs, one rank on each: kernels may then fill them while they wait. Where others compute
  // there too, what a peer computes before it comes needs room. The same on all ranks.
  bool alone = false;
};

class OneShotGroup {
 public:
  virtual ~OneShotGroup() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Summed in rank order in float32 and rounded once, the same bits on all ranks.
  virtual void all_reduce_sum(const OneShotSum& op, Stream& stream) = 0;
  // x[t] += the sum of all ranks' op.delta[t], rounded once; y[t] = RMSNorm(x[t]). All ranks hold the same bits of y where they do of x.
  virtual void all_reduce_norm(const RmsNorm& op, Stream& stream) = 0;
  // Throws CommError naming the ranks and the operation when the group is broken. Call it after waiting for a stream: the operations of a
  // broken group end without a result. Operations on a broken group throw the same.
  virtual void check() = 0;
  // This rank takes part no more; from any thread. Its kernels that wait give up, and tell those of the others that wait for it; the
  // others find out in their next operation, after the timeout at the latest.
  virtual void abort() = 0;
};

// Collective over `ranks`, which belongs to the group from then on: at most 8, of one host, each with its GPU current. Up to 4 ranks may
// share a GPU: under CUDA's multi-process service, or as threads of one process; threads may also have a GPU each. Throws CommError on every rank when a rank cannot take
// part. The group's end is collective too: each rank has waited for its streams, and waits a few seconds at most for the others, whose
// mappings must be gone before memory is given back; a group that is broken or left alone keeps its memory until the process ends.
std::unique_ptr<OneShotGroup> make_one_shot_group(std::unique_ptr<Communicator> ranks, OneShotOptions options = {});

}  // namespace accrete::parallel
