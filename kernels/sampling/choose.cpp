#include "kernels/sampling/choose.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/cpu_isa.h"
#include "kernels/exp.h"

namespace accrete {
namespace {

constexpr int64_t kBlock = 512;  // weights summed in float before the sum goes to double

bool by_token(const ScoredToken& a, const ScoredToken& b) { return a.token < b.token; }

double mass_of(std::span<const ScoredToken> tokens) {
  double mass = 0;
  for (const ScoredToken& each : tokens) mass += each.score;
  return mass;
}

struct WeighBlock {
  const float* logits;
  float* weights;  // out: e^((logit - largest) inverse_temperature)
  int64_t count;
  float largest, inverse_temperature;
};

// Returns the sum of the weights. Sixteen partial sums, so that the loop vectorises.
ACCRETE_LOOP float weigh_loop(const WeighBlock& block) {
  constexpr int kLanes = 16;
  for (int64_t i = 0; i < block.count; ++i) {
    block.weights[i] = fast_exp((block.logits[i] - block.largest) * block.inverse_temperature);
  }
  float sums[kLanes] = {};
  int64_t i = 0;
  for (; i + kLanes <= block.count; i += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) sums[lane] += block.weights[i + lane];
  }
  float sum = 0;
  for (; i < block.count; ++i) sum += block.weights[i];
  for (float part : sums) sum += part;
  return sum;
}
float weigh_portable(const WeighBlock& block) { return weigh_loop(block); }
ACCRETE_TARGET_AVX2 float weigh_avx2(const WeighBlock& block) { return weigh_loop(block); }
ACCRETE_TARGET_AVX512 float weigh_avx512(const WeighBlock& block) { return weigh_loop(block); }

// The last token of the smallest best-first prefix whose mass reaches `need`: quickselect by mass instead of by rank.
// Tokens are distinct, so the median of three leaves at least one token on either side and every round shrinks the range.
ScoredToken last_of_prefix(std::span<ScoredToken> tokens, double need) {
  constexpr size_t kSortBelow = 64;
  while (tokens.size() > kSortBelow) {
    ScoredToken probe[3] = {tokens.front(), tokens[tokens.size() / 2], tokens.back()};
    std::sort(probe, probe + 3, better);
    const ScoredToken pivot = probe[1];
    const auto middle = std::partition(tokens.begin(), tokens.end(), [&](const auto& t) { return !better(pivot, t); });
    const std::span<ScoredToken> best(tokens.begin(), middle);
    const double mass = mass_of(best);
    if (mass >= need) {
      tokens = best;
    } else {
      need -= mass;
      tokens = std::span<ScoredToken>(middle, tokens.end());
    }
  }
  std::sort(tokens.begin(), tokens.end(), better);
  for (const ScoredToken& each : tokens) {
    need -= each.score;
    if (need <= 0) return each;
  }
  return tokens.back();
}

}  // namespace

double Chooser::weigh(std::span<const float> logits) {
  const int64_t count = static_cast<int64_t>(logits.size());
  weights_.resize(count);
  block_mass_.clear();
  const auto weigh_block = IsaTable(weigh_portable, weigh_avx2, weigh_avx512).best();
  double total = 0;
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t size = std::min(kBlock, count - begin);
    block_mass_.push_back(weigh_block({&logits[begin], &weights_[begin], size, largest_, inverse_temperature_}));
    total += block_mass_.back();
  }
  return total;
}

int32_t Chooser::choose_unfiltered(std::span<const float> logits, double uniform) {
  double target = uniform * weigh(logits);
  size_t block = 0;
  while (block + 1 < block_mass_.size() && target >= block_mass_[block]) target -= block_mass_[block++];
  const int64_t end = std::min<int64_t>((block + 1) * kBlock, weights_.size());
  int32_t last = -1;  // the last possible token so far: where rounding leaves a rest of target, it is taken
  for (int64_t i = block * kBlock; i < end; ++i) {
    if (weights_[i] <= 0) continue;
    last = static_cast<int32_t>(i);
    target -= weights_[i];
    if (target < 0) return last;
  }
  if (last >= 0) return last;
  return static_cast<int32_t>(std::max_element(weights_.begin(), weights_.end()) - weights_.begin());
}

void Chooser::gather_top_k(const SamplingParams& params, std::span<const float> logits) {
  select_top(logits, params.top_k, kept_);
  std::sort(kept_.begin(), kept_.end(), by_token);
  for (ScoredToken& each : kept_) each.score = fast_exp((each.score - largest_) * inverse_temperature_);
  std::erase_if(kept_, [&](const ScoredToken& each) { return each.score < params.min_p || each.score <= 0; });
  mass_ = mass_of(kept_);
}

// Without top-k. A token lighter than (1 - p) / V of the mass lies beyond the top-p prefix: all such tokens together weigh
// less than 1 - p. That leaves few to order. (Half of it, to be clear of rounding.)
void Chooser::gather(const SamplingParams& params, std::span<const float> logits) {
  mass_ = weigh(logits);
  const double beyond = 0.5 * (1.0 - params.top_p) * mass_ / static_cast<double>(logits.size());
  const float lightest = params.min_p > 0 ? params.min_p : static_cast<float>(beyond);
  keep_at_least(weights_, std::max(lightest, std::numeric_limits<float>::min()), kept_);
  if (params.min_p > 0) mass_ = mass_of(kept_);
}

void Chooser::keep_top_p(double share) {
  order_ = kept_;
  const ScoredToken last = last_of_prefix(order_, share * mass_);
  std::erase_if(kept_, [&](const ScoredToken& each) { return better(last, each); });
}

int32_t Chooser::choose(const SamplingParams& params, std::span<const float> logits, float largest, double uniform) {
  largest_ = largest;
  inverse_temperature_ = 1.0f / params.temperature;
  const bool top_k = params.top_k > 0 && params.top_k < static_cast<int64_t>(logits.size());
  const bool top_p = params.top_p < 1.0f;
  if (!top_k && !top_p && params.min_p <= 0) return choose_unfiltered(logits, uniform);
  if (top_k) gather_top_k(params, logits);
  else gather(params, logits);
  if (top_p) keep_top_p(params.top_p);
  double target = uniform * mass_of(kept_);
  for (const ScoredToken& each : kept_) {
    target -= each.score;
    if (target < 0) return each.token;
  }
  return kept_.back().token;
}

}  // namespace accrete
