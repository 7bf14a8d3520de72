// What goes into an engine and what comes out: token ids only.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "kernels/sampling/sampling.h"

namespace accrete::worker {

using RequestId = uint64_t;

struct Request {
  RequestId id = 0;                // unique over the engine's life; also the key of its synthetic decisions unless decision_key is set
  std::vector<int32_t> prompt;
  std::vector<int32_t> generated;  // tokens already sent elsewhere: a moved request goes on after them
  SamplingParams sampling;
  int64_t max_tokens = 16;         // counts `generated` too
  int64_t min_tokens = 0;
  bool ignore_eos = false;
  std::vector<int32_t> stop_token_ids;  // beside the model's own end-of-sequence ids
  int32_t prompt_logprobs = -1;    // n >= 0: score every prompt token, with the n best
  int32_t priority = 0;            // smaller first
  std::optional<uint64_t> decision_key;
  bool pretend_prompt = false;     // benchmarks of decoding: the prompt fills the caches with random entries, nothing else of it is computed
};

enum class FinishReason : uint8_t { none, stop, length, abort, error };

struct TokenOut {
  int32_t id = 0;
  float logprob = 0.0f;
  int32_t rank = 0;
  std::vector<TokenLogprobOf> top;
};

struct RequestUsage {
  int64_t prompt_tokens = 0;
  int64_t completion_tokens = 0;
  double kv_slots = 0.0;  // mean over all layers and KV heads
  double compression_ratio = 1.0;
  int64_t preemptions = 0;
  std::vector<int32_t> head_slots;  // [L * Hkv] of the whole model, at the end
};

struct RequestOutput {
  RequestId id = 0;
  std::vector<TokenOut> tokens;         // new ones
  std::vector<TokenOut> prompt_tokens;  // prompt_logprobs, as they come (the first prompt token has none and is left out)
  FinishReason finish = FinishReason::none;
  std::string error;                    // finish == error
  RequestUsage usage;                   // with finish
};

// Called from the leader's step thread; must not block.
using OutputSink = std::function<void(std::vector<RequestOutput>&&)>;

}  // namespace accrete::worker
