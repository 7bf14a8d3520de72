// Up to which size the one-shot kernels are faster than a group's own sum. Builds with CUDA only.
#pragma once

#include <cstdint>
#include <span>

#include "parallel/communicator.h"
#include "parallel/device_group.h"
#include "parallel/one_shot_group.h"

namespace accrete::parallel {

// Bytes of an operation at most, 0: never. The same on all ranks of a group.
struct OneShotLimits {
  int64_t sum_bytes = 0;
  int64_t norm_bytes = 0;  // a sum with the residual addition and RMSNorm behind it, of bf16
};

// Without measuring: where two H200 gain in both operations.
constexpr OneShotLimits kUsualOneShotLimits{1 << 20, 256 << 10};

// The one-shot way and the other at sizes from small to large.
struct TimedSize {
  int64_t bytes;
  double one_shot_us, other_us;
};
// The largest size that the one-shot way wins before it loses at two in a row: a single loss is noise. 0: none.
inline int64_t limit_of(std::span<const TimedSize> sizes) {
  int64_t limit = 0;
  int losses = 0;
  for (const TimedSize& size : sizes) {
    losses = size.one_shot_us < size.other_us ? 0 : losses + 1;
    if (losses == 2) break;
    if (losses == 0) limit = size.bytes;
  }
  return limit;
}

// Both ways of both operations, timed in turn, twice, at doubling sizes of bf16 rows of `width` up to `most` bytes. Takes some 0.3 s and a few
// times `most` of memory meanwhile. Collective over `ranks`, those of both groups; throws CommError when one of them breaks or has no memory.
struct OneShotTuning {
  OneShotGroup& one_shot;
  DeviceGroup& group;
  Communicator& ranks;
  int64_t width;
  int64_t most;
  bool norms = true;  // whether norms matter
};
OneShotLimits tune_one_shot(const OneShotTuning& tuning, Stream& stream);

}  // namespace accrete::parallel
