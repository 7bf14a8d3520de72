#include "kernels/sampling/top_logits.h"

#include <algorithm>
#include <limits>

#include "kernels/sampling/largest.h"

namespace accrete {
namespace {

constexpr int64_t kLogitsPerBlock = 16;  // blocks shorter than this filter too little to be worth a pass

// Cuts the logits into k blocks: each holds a logit of at least the smallest of the k block maxima, so at least k logits do,
// and the k-th best is no smaller. Typically a few times k logits pass.
float lower_bound_of_kth(std::span<const float> logits, int64_t k) {
  const int64_t count = static_cast<int64_t>(logits.size());
  float bound = std::numeric_limits<float>::infinity();
  for (int64_t block = 0; block < k; ++block) {
    const int64_t begin = count * block / k, end = count * (block + 1) / k;
    bound = std::min(bound, largest_of(&logits[begin], end - begin).logit);
  }
  return bound;
}

}  // namespace

void keep_at_least(std::span<const float> scores, float least, std::vector<ScoredToken>& kept) {
  kept.resize(scores.size() + 1);
  size_t count = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    kept[count] = {scores[i], static_cast<int32_t>(i)};  // overwritten by the next unless it stays: no branch to mispredict
    count += scores[i] >= least;
  }
  kept.resize(count);
}

void select_top(std::span<const float> logits, int64_t k, std::vector<ScoredToken>& best) {
  if (k <= 0) return best.clear();
  const int64_t count = static_cast<int64_t>(logits.size());
  const bool filter = k * kLogitsPerBlock < count;
  const float bound = filter ? lower_bound_of_kth(logits, k) : -std::numeric_limits<float>::infinity();
  keep_at_least(logits, bound, best);
  if (static_cast<int64_t>(best.size()) <= k) return;
  std::nth_element(best.begin(), best.begin() + k - 1, best.end(), better);
  best.resize(k);
}

}  // namespace accrete
