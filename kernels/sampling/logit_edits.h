// The edits that come before temperature: forbidden ids, bias, penalties, in vLLM's order. They remember what they overwrote,
// since logprobs are those of the raw logits. Scratch of one thread; grows to V once and is then reused.
#pragma once

#include <span>
#include <utility>
#include <vector>

#include "kernels/sampling/sampling.h"

namespace accrete {

class LogitEdits {
 public:
  // Edits `logits` in place. Ids outside [0, V) are ignored: they name tokens that cannot be sampled.
  void apply(const SampleRequest& request, std::span<float> logits);
  // Whether the last apply() touched a logit.
  bool any() const { return !before_.empty(); }
  // Puts back every overwritten logit.
  void undo(std::span<float> logits);

 private:
  bool touch(int32_t token, std::span<float> logits);
  void repeat(int32_t token, float penalty, std::span<float> logits);
  void penalise_repetition(const SampleRequest& request, std::span<float> logits);

  std::vector<std::pair<int32_t, float>> before_;  // (token, logit), in the order of the edits
  std::vector<bool> repeated_;                     // [V] during penalise_repetition, all false between calls
};

}  // namespace accrete
