// A pass over device memory that reads all of it once and writes next to nothing. Its speed is the limit of kernels that read, as decode
// attention does; and what lies in the level-two cache afterwards is the end of `words`. Exists in builds with CUDA.
#pragma once

#include <cstdint>

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

struct ReadPass {
  View<const uint32_t, 1> words;  // [n] contiguous, n a multiple of 4, at a multiple of 16 bytes
  View<uint32_t, 1> parity;       // [1] in and out: becomes parity ^ words[0] ^ ... ^ words[n - 1]
};
void read_pass_cuda(const ReadPass& op, Stream& stream);

}  // namespace accrete
