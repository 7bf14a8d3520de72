// Device memory filled with random numbers (kernels/device/random_value.h) at the memory's speed: weights that stand for a model's, inputs
// of benchmarks. Exists in builds with CUDA.
#pragma once

#include <cstdint>

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

// values[i] = random_value(key, first + i, deviation), rounded to the type.
struct RandomFill {
  AnyView<1> values;       // [n] f32, bf16 or fp8, contiguous
  uint64_t key = 0;
  float deviation = 1.0f;
  int64_t first = 0;       // index of values[0] in the stream: parts of one stream can be filled by different ranks
};
void fill_random_cuda(const RandomFill& op, Stream& stream);

}  // namespace accrete
