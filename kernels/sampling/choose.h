// One draw from edited logits: temperature, min-p, top-k, top-p, then the token in which the uniform falls.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/sampling/sampling.h"
#include "kernels/sampling/top_logits.h"

namespace accrete {

// Scratch of one thread; grows to V once and is then reused.
class Chooser {
 public:
  // The token at `uniform` in (0, 1) of the filtered distribution, laid out in order of ids. `largest` is the largest logit,
  // finite; temperature > 0.
  int32_t choose(const SamplingParams& params, std::span<const float> logits, float largest, double uniform);

 private:
  int32_t choose_unfiltered(std::span<const float> logits, double uniform);
  void gather(const SamplingParams& params, std::span<const float> logits);
  void gather_top_k(const SamplingParams& params, std::span<const float> logits);
  void keep_top_p(double share);
  double weigh(std::span<const float> logits);

  float largest_ = 0;
  float inverse_temperature_ = 1;
  std::vector<float> weights_;      // [V] exp((logit - largest) / temperature)
  std::vector<double> block_mass_;  // sums of kBlock weights
  std::vector<ScoredToken> kept_;   // survivors in order of ids; score: weight
  std::vector<ScoredToken> order_;  // keep_top_p's work copy
  double mass_ = 0;                 // of the distribution that kept_ is filtered from
};

}  // namespace accrete
