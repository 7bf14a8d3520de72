// What raw logits say: their largest, whether they are usable at all, log probabilities and ranks.
#pragma once

#include <cstdint>
#include <span>

#include "kernels/sampling/sampling.h"

namespace accrete {

struct LargestLogit {
  float logit = 0;
  int32_t token = -1;   // the smallest id of the largest logit
  bool usable = false;  // false: some logit is NaN or +inf
};
LargestLogit largest_logit(std::span<const float> logits);

// log softmax(logits)[token], its rank and the `top` best. `largest`: the largest logit, finite.
Sampled score_token(std::span<const float> logits, float largest, int32_t token, int32_t top);

}  // namespace accrete
