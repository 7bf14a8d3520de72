// From logits to tokens: penalties, bias, temperature, top-k, top-p, min-p, Philox, logprobs.
#pragma once

#include <cstdint>
#include <span>
#include <utility>
#include <vector>

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

struct SamplingParams {
  float temperature = 1.0f;  // 0: greedy
  float top_p = 1.0f;        // 1: off
  int32_t top_k = 0;         // 0 or -1: off
  float min_p = 0.0f;        // 0: off
  float presence_penalty = 0.0f;
  float frequency_penalty = 0.0f;
  float repetition_penalty = 1.0f;  // 1: off; over prompt and generated tokens
  std::vector<std::pair<int32_t, float>> logit_bias;
  uint64_t seed = 0;
  int32_t logprobs = -1;     // -1: none; n >= 0: the sampled token's own and the n best

  bool penalised() const { return presence_penalty != 0.0f || frequency_penalty != 0.0f || repetition_penalty != 1.0f; }
};

// Philox 4x32-10 (Salmon et al., SC 2011): a uniform in (0, 1) for (seed, position). The same on every device.
double philox_uniform(uint64_t seed, uint64_t position);

// How often a sequence's tokens occurred; kept by the caller, updated as tokens are sampled.
struct TokenCounts {
  std::span<const std::pair<int32_t, int32_t>> generated;  // (token, times), any order
  std::span<const int32_t> prompt;                         // distinct prompt tokens
};

struct TokenLogprobOf { int32_t token; float logprob; };

struct Sampled {
  int32_t token = -1;           // -1: the logits hold NaN or +inf, or leave no token; the request must end with an error
  // Computed when params.logprobs >= 0:
  float logprob = 0.0f;         // log softmax of the raw logits (before temperature and penalties), as vLLM reports it
  int32_t rank = 0;             // 1: the most likely
  std::vector<TokenLogprobOf> top;  // the params.logprobs most likely, best first
};

struct SampleRequest {
  const SamplingParams* params = nullptr;
  TokenCounts counts;
  uint64_t position = 0;        // absolute position of the token to be sampled: the random stream's counter
  std::span<const int32_t> forbidden;  // e.g. end-of-sequence ids below min_tokens
};

// One row of f32 logits [V]; they are overwritten. Ties go to the smallest id. Temperatures below 1e-5 are greedy. Ids outside
// [0, V) in bias, counts and forbidden are ignored. Thread-safe; scratch is thread-local.
Sampled sample_cpu(const SampleRequest& request, std::span<float> logits);

// log softmax(logits)[token], its rank and the n best: for prompt_logprobs.
Sampled score_cpu(std::span<const float> logits, int32_t token, int32_t top);

}  // namespace accrete
