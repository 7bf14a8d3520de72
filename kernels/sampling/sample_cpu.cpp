#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/check.h"
#include "kernels/sampling/choose.h"
#include "kernels/sampling/logit_edits.h"
#include "kernels/sampling/philox.h"
#include "kernels/sampling/raw_scores.h"
#include "kernels/sampling/sampling.h"

namespace accrete {
namespace {

constexpr float kGreedyBelow = 1e-5f;  // temperatures below it are greedy, as in vLLM: logits / T would overflow

struct Scratch {
  LogitEdits edits;
  Chooser chooser;
};

// Allocated once a thread, so that the step path does not.
Scratch& scratch() {
  thread_local Scratch mine;
  return mine;
}

}  // namespace

double philox_uniform(uint64_t seed, uint64_t position) {
  const PhiloxBlock counter{{static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), 0, 0}};
  return philox_unit(philox_4x32(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)));
}

Sampled sample_cpu(const SampleRequest& request, std::span<float> logits) {
  CHECK(request.params != nullptr && !logits.empty(), logits.size());
  const SamplingParams& params = *request.params;
  Scratch& mine = scratch();
  const LargestLogit raw = largest_logit(logits);
  if (!raw.usable) return {};
  mine.edits.apply(request, logits);
  const LargestLogit edited = mine.edits.any() ? largest_logit(logits) : raw;
  if (!edited.usable || edited.logit == -std::numeric_limits<float>::infinity()) return {};
  Sampled sampled;
  if (params.temperature < kGreedyBelow) {
    sampled.token = edited.token;
  } else {
    const double uniform = philox_uniform(params.seed, request.position);
    sampled.token = mine.chooser.choose(params, logits, edited.logit, uniform);
  }
  if (params.logprobs < 0) return sampled;
  mine.edits.undo(logits);
  return score_token(logits, raw.logit, sampled.token, params.logprobs);
}

Sampled score_cpu(std::span<const float> logits, int32_t token, int32_t top) {
  CHECK(token >= 0 && static_cast<size_t>(token) < logits.size(), token, logits.size());
  const LargestLogit raw = largest_logit(logits);
  if (!raw.usable || raw.logit == -std::numeric_limits<float>::infinity()) return {};
  return score_token(logits, raw.logit, token, top);
}

}  // namespace accrete
