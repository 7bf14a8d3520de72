#include "kernels/sampling/largest.h"

#include <limits>

#include "kernels/cpu_isa.h"

namespace accrete {
namespace {

ACCRETE_LOOP Largest largest_loop(const float* logits, int64_t count) {
  constexpr int kLanes = 32;
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  float best[kLanes];
  int32_t unusable[kLanes] = {};
  for (float& lane : best) lane = -kInfinity;
  int64_t i = 0;
  for (; i + kLanes <= count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float logit = logits[i + lane];
      best[lane] = best[lane] > logit ? best[lane] : logit;
      // A NaN fails every comparison, so "not (logit < inf)" finds NaN and +inf at once.
      unusable[lane] |= logit < kInfinity ? 0 : 1;
    }
  }
  Largest all{-kInfinity, true};
  for (; i < count; ++i) {
    all.logit = all.logit > logits[i] ? all.logit : logits[i];
    all.usable &= logits[i] < kInfinity;
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    all.logit = all.logit > best[lane] ? all.logit : best[lane];
    all.usable &= unusable[lane] == 0;
  }
  return all;
}
Largest largest_portable(const float* logits, int64_t count) { return largest_loop(logits, count); }
ACCRETE_TARGET_AVX2 Largest largest_avx2(const float* logits, int64_t count) { return largest_loop(logits, count); }
ACCRETE_TARGET_AVX512 Largest largest_avx512(const float* logits, int64_t count) { return largest_loop(logits, count); }

}  // namespace

Largest largest_of(const float* logits, int64_t count) {
  return IsaTable(largest_portable, largest_avx2, largest_avx512).best()(logits, count);
}

}  // namespace accrete
