#include "kernels/sampling/logit_edits.h"

#include <limits>

namespace accrete {

bool LogitEdits::touch(int32_t token, std::span<float> logits) {
  if (token < 0 || static_cast<size_t>(token) >= logits.size()) return false;
  before_.emplace_back(token, logits[token]);
  return true;
}

void LogitEdits::repeat(int32_t token, float penalty, std::span<float> logits) {
  if (!touch(token, logits) || repeated_[token]) return;
  repeated_[token] = true;
  float& logit = logits[token];
  logit = logit > 0 ? logit / penalty : logit * penalty;
}

// Once a token, whether it came in the prompt, was generated, or both.
void LogitEdits::penalise_repetition(const SampleRequest& request, std::span<float> logits) {
  const float penalty = request.params->repetition_penalty;
  if (repeated_.size() < logits.size()) repeated_.resize(logits.size());
  const size_t first = before_.size();
  for (int32_t token : request.counts.prompt) repeat(token, penalty, logits);
  for (const auto& [token, times] : request.counts.generated) {
    if (times > 0) repeat(token, penalty, logits);
  }
  for (size_t i = first; i < before_.size(); ++i) repeated_[before_[i].first] = false;
}

void LogitEdits::apply(const SampleRequest& request, std::span<float> logits) {
  const SamplingParams& params = *request.params;
  before_.clear();
  for (int32_t token : request.forbidden) {
    if (touch(token, logits)) logits[token] = -std::numeric_limits<float>::infinity();
  }
  for (const auto& [token, bias] : params.logit_bias) {
    if (touch(token, logits)) logits[token] += bias;
  }
  if (params.repetition_penalty != 1.0f) penalise_repetition(request, logits);
  if (params.frequency_penalty == 0.0f && params.presence_penalty == 0.0f) return;
  for (const auto& [token, times] : request.counts.generated) {
    if (times <= 0 || !touch(token, logits)) continue;
    logits[token] -= params.frequency_penalty * static_cast<float>(times) + params.presence_penalty;
  }
}

void LogitEdits::undo(std::span<float> logits) {
  for (size_t i = before_.size(); i-- > 0;) logits[before_[i].first] = before_[i].second;
  before_.clear();
}

}  // namespace accrete
