// Up to which size the one-shot kernels are faster than a group's own sum. Builds with CUDA only.
#pragma once

#include <cstdint>

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

// Both ways of both operations, timed in turn at doubling sizes of bf16 rows of `width` up to `most` bytes, until the one-shot kernel is
// the slower one. Takes some 0.1 s and a few times `most` of memory meanwhile. Collective over `ranks`, those of both groups; throws CommError
// when one of them breaks.
struct OneShotTuning {
  OneShotGroup& one_shot;
  DeviceGroup& group;
  Communicator& ranks;
  int64_t width;
  int64_t most;
};
OneShotLimits tune_one_shot(const OneShotTuning& tuning, Stream& stream);

}  // namespace accrete::parallel
