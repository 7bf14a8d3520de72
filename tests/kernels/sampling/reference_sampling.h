// Sampling the slow way, in double and with full sorts, to hold the real one against.
#pragma once

#include <algorithm>
#include <cmath>
#include <random>
#include <utility>
#include <vector>

#include "kernels/sampling/sampling.h"

namespace accrete {

// What remains after temperature, min-p, top-k and top-p: (token, probability) in order of ids, summing to 1.
inline std::vector<std::pair<int32_t, double>> reference_distribution(const std::vector<float>& logits,
                                                                      const SamplingParams& params) {
  const double largest = *std::max_element(logits.begin(), logits.end());
  std::vector<std::pair<int32_t, double>> tokens;
  for (size_t i = 0; i < logits.size(); ++i) {
    tokens.emplace_back(static_cast<int32_t>(i), std::exp((logits[i] - largest) / params.temperature));
  }
  std::erase_if(tokens, [&](const auto& each) { return each.second < params.min_p || each.second == 0; });
  std::stable_sort(tokens.begin(), tokens.end(), [](const auto& a, const auto& b) { return a.second > b.second; });
  if (params.top_k > 0) tokens.resize(std::min<size_t>(tokens.size(), params.top_k));
  double mass = 0;
  for (const auto& each : tokens) mass += each.second;
  double before = 0;
  size_t kept = 0;
  while (kept < tokens.size() && (kept == 0 || before < params.top_p * mass)) before += tokens[kept++].second;
  if (params.top_p < 1) tokens.resize(kept);
  mass = 0;
  for (const auto& each : tokens) mass += each.second;
  for (auto& each : tokens) each.second /= mass;
  std::sort(tokens.begin(), tokens.end());
  return tokens;
}

inline std::vector<float> random_logits(int64_t count, unsigned seed, float spread = 3.0f) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> logits(count);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

}  // namespace accrete
