// The k largest of V logits without sorting V: the order everywhere in sampling is larger logit first, then smaller id.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace accrete {

struct ScoredToken {
  float score;
  int32_t token;
};

inline bool better(const ScoredToken& a, const ScoredToken& b) {
  return a.score > b.score || (a.score == b.score && a.token < b.token);
}

// The tokens that score at least `least`, in order of ids.
void keep_at_least(std::span<const float> scores, float least, std::vector<ScoredToken>& kept);

// The k best of `logits` into `best`, in no particular order (fewer when V < k). `best` is the caller's scratch. No NaN.
void select_top(std::span<const float> logits, int64_t k, std::vector<ScoredToken>& best);

}  // namespace accrete
