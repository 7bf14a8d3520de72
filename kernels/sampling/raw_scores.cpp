#include "kernels/sampling/raw_scores.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu_isa.h"
#include "kernels/exp.h"
#include "kernels/sampling/largest.h"
#include "kernels/sampling/top_logits.h"

namespace accrete {
namespace {

constexpr int64_t kBlock = 512;  // a block is reduced by vector code, then looked at

// Sum of e^(logit - largest): floats within a block, doubles across blocks.
ACCRETE_LOOP double exp_sum_loop(const float* logits, int64_t count, float largest) {
  constexpr int kLanes = 16;
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = begin + kBlock < count ? begin + kBlock : count;
    float sums[kLanes] = {};
    int64_t i = begin;
    for (; i + kLanes <= end; i += kLanes) {
      for (int lane = 0; lane < kLanes; ++lane) sums[lane] += fast_exp(logits[i + lane] - largest);
    }
    for (; i < end; ++i) sums[0] += fast_exp(logits[i] - largest);
    for (float part : sums) total += part;
  }
  return total;
}
double exp_sum_portable(const float* logits, int64_t count, float largest) { return exp_sum_loop(logits, count, largest); }
ACCRETE_TARGET_AVX2 double exp_sum_avx2(const float* logits, int64_t count, float largest) {
  return exp_sum_loop(logits, count, largest);
}
ACCRETE_TARGET_AVX512 double exp_sum_avx512(const float* logits, int64_t count, float largest) {
  return exp_sum_loop(logits, count, largest);
}

// 1 + how many are better: larger, or as large with a smaller id.
int32_t rank_of(std::span<const float> logits, int32_t token) {
  const float mine = logits[token];
  int32_t rank = 1;
  for (float logit : logits) rank += logit > mine;
  for (int32_t other = 0; other < token; ++other) rank += logits[other] == mine;
  return rank;
}

}  // namespace

LargestLogit largest_logit(std::span<const float> logits) {
  const int64_t count = static_cast<int64_t>(logits.size());
  const Largest all = largest_of(logits.data(), count);
  if (!all.usable) return {};
  return {all.logit, static_cast<int32_t>(std::find(logits.begin(), logits.end(), all.logit) - logits.begin()), true};
}

Sampled score_token(std::span<const float> logits, float largest, int32_t token, int32_t top) {
  const auto exp_sum = IsaTable(exp_sum_portable, exp_sum_avx2, exp_sum_avx512).best();
  const double normalizer = std::log(exp_sum(logits.data(), static_cast<int64_t>(logits.size()), largest)) + largest;
  Sampled scored;
  scored.token = token;
  scored.logprob = static_cast<float>(logits[token] - normalizer);
  scored.rank = rank_of(logits, token);
  if (top <= 0) return scored;
  thread_local std::vector<ScoredToken> best;
  select_top(logits, top, best);
  std::sort(best.begin(), best.end(), better);
  for (const ScoredToken& each : best) {
    scored.top.push_back({each.token, static_cast<float>(each.score - normalizer)});
  }
  return scored;
}

}  // namespace accrete
