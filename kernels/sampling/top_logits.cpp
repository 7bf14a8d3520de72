#include "kernels/sampling/top_logits.h"

#include <algorithm>
#include <limits>

namespace accrete {
namespace {

constexpr int64_t kLogitsPerBlock = 16;  // blocks shorter than this filter too little to be worth a pass

// Cuts the logits into k blocks: each holds a logit of at least the smallest of the k block maxima, so at least k logits do,
// and the k-th best is no smaller. Typically a few times k logits pass.
float lower_bound_of_kth(std::span<const float> logits, int64_t k) {
  const int64_t count = static_cast<int64_t>(logits.size());
  float bound = std::numeric_limits<float>::infinity();
  for (int64_t block = 0; block < k; ++block) {
    float largest = -std::numeric_limits<float>::infinity();
    for (int64_t i = count * block / k; i < count * (block + 1) / k; ++i) largest = std::max(largest, logits[i]);
    bound = std::min(bound, largest);
  }
  return bound;
}

}  // namespace

void select_top(std::span<const float> logits, int64_t k, std::vector<ScoredToken>& best) {
  best.clear();
  if (k <= 0) return;
  const int64_t count = static_cast<int64_t>(logits.size());
  const bool filter = k * kLogitsPerBlock < count;
  const float bound = filter ? lower_bound_of_kth(logits, k) : -std::numeric_limits<float>::infinity();
  for (int64_t i = 0; i < count; ++i) {
    if (logits[i] >= bound) best.push_back({logits[i], static_cast<int32_t>(i)});
  }
  if (static_cast<int64_t>(best.size()) <= k) return;
  std::nth_element(best.begin(), best.begin() + k - 1, best.end(), better);
  best.resize(k);
}

}  // namespace accrete
