#include "kernels/rope/rope_angles.h"

#include <cmath>

#include "kernels/thread_pool.h"

namespace accrete {

void rope_angles_cpu(const RopeAngles& op, Stream& stream) {
  const int64_t tokens = op.position.shape[0];
  const int64_t half = op.inv_freq.shape[0];
  CHECK(op.cos.shape[0] == tokens && op.sin.shape[0] == tokens, op.cos.shape[0], op.sin.shape[0], tokens);
  CHECK(op.cos.shape[1] == half && op.sin.shape[1] == half, op.cos.shape[1], op.sin.shape[1], half);
  constexpr int64_t kGrainTokens = 16;  // some 30 us of sines
  stream.pool->run_ranges(tokens, kGrainTokens, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      for (int64_t i = 0; i < half; ++i) {
        const double angle = op.position(t) * op.inv_freq(i);
        op.cos(t, i) = static_cast<float>(std::cos(angle));
        op.sin(t, i) = static_cast<float>(std::sin(angle));
      }
    }
  });
}

}  // namespace accrete
