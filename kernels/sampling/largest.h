// The largest of a stretch of logits, the loop below greedy choice and top-k.
#pragma once

#include <cstdint>

namespace accrete {

struct Largest {
  float logit;
  bool usable;  // false: some logit is NaN or +inf; logit is then meaningless
};

// Of `count` >= 1 logits; vectorised.
Largest largest_of(const float* logits, int64_t count);

}  // namespace accrete
