// Sampling on the device: the same tokens as sample_cpu for the same logits, parameters, seed and position, without the host. The
// kernels keep each sequence's token statistics up to date themselves, so a step can be enqueued before the last one's tokens are
// known. Enqueues three kernels of a grid that depends on n and V alone; no allocation, no synchronisation: can be captured.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

constexpr int32_t kMostTopLogprobs = 20;          // of the best tokens reported of a row
constexpr int64_t kMostVocabulary = 8 * 49152;    // a row's logits lie in the shared memory of at most 8 multiprocessors
constexpr int32_t kMostGreedyParts = 64;          // thread blocks that look for one row's largest logit

// One logit's edit: a bias, or -inf for a forbidden token. Of a row they are ordered by token, then as sample_cpu applies them.
struct LogitEdit {
  int32_t token;   // in [0, V)
  int32_t until;   // applied to tokens sampled at positions below it
  float addend;
};

// What the kernels know of one open request.
struct SamplerRow {
  uint64_t seed = 0;
  float inverse_temperature = 0;  // 0: greedy
  float top_p = 1;
  float min_p = 0;
  int32_t top_k = 0;              // 0: off
  float presence_penalty = 0;
  float frequency_penalty = 0;
  float repetition_penalty = 1;
  int32_t logprobs = -1;          // as SamplingParams::logprobs, at most kMostTopLogprobs
  int32_t edits = 0;              // entries of `SamplerTables::edits`
  int32_t edits_until = 0;        // the largest `until` of them
  int32_t penalised = 0;          // 1: some penalty is on, and the statistics are kept

  ACCRETE_HD bool greedy() const { return inverse_temperature == 0; }
  // Nothing but the largest raw logit is wanted at this position.
  ACCRETE_HD bool plain(int32_t position) const { return greedy() && !penalised && position >= edits_until; }
};

// Device memory of DeviceSamplerTables (device_sampler.h). R: rows, one an open request; K: edits a row holds.
struct SamplerTables {
  const SamplerRow* rows = nullptr;        // [R]
  const LogitEdit* edits = nullptr;        // [R, K]
  const uint32_t* prompt_bits = nullptr;   // [R, ceil(V / 32)] bit id % 32 of word id / 32: the prompt holds the token
  uint16_t* counts = nullptr;              // [R, V] times generated; stays at 65535
  uint64_t* greedy_parts = nullptr;        // [R, kMostGreedyParts] scratch between the kernels of one call
  int64_t row_count = 0, edit_capacity = 0, vocabulary = 0;
};

struct SampleDevice {
  View<const float, 2> logits;         // [n, V] raw, left as they are; n <= R
  SamplerTables tables;
  const int32_t* state_row = nullptr;  // [n] row of the tables, each at most once; -1: padding, whose outputs are left alone
  const int32_t* position = nullptr;   // [n] absolute position of the token to be sampled
  // Out. token: -1 as Sampled::token. logprob, rank: 0 unless the row asks for logprobs. top_*: best first, -1 after the last.
  int32_t* token = nullptr;            // [n]
  int32_t* next_ids = nullptr;         // [n] the token again, where the next step's embedding reads it; null: not wanted
  float* logprob = nullptr;            // [n]
  int32_t* rank = nullptr;             // [n]
  int32_t* top_tokens = nullptr;       // [n, kMostTopLogprobs]
  float* top_logprobs = nullptr;       // [n, kMostTopLogprobs]
};

// Masses are sums of weights in units of 2^-44 (device_weights.h), exact, so a row's token does not depend on n or on the grid.
// It is sample_cpu's unless the uniform, or top_p, lies within 9e-6 of a token's edge: sample_cpu sums up to 512 floats at a time.
void sample_cuda(const SampleDevice& op, Stream& stream);

// log softmax(logits)[token], its rank and the best tokens, as score_cpu: for prompt_logprobs.
struct ScoreDevice {
  View<const float, 2> logits;       // [m, V] raw
  const int32_t* token = nullptr;    // [m] -1: padding, whose outputs are left alone
  const int32_t* top = nullptr;      // [m] how many of the best, at most kMostTopLogprobs
  int32_t* scored = nullptr;         // [m] out: the token, or -1 as Sampled::token; may be `token`
  float* logprob = nullptr;          // [m] out
  int32_t* rank = nullptr;           // [m] out
  int32_t* top_tokens = nullptr;     // [m, kMostTopLogprobs] out; -1 after the last
  float* top_logprobs = nullptr;     // [m, kMostTopLogprobs] out
};
void score_cuda(const ScoreDevice& op, Stream& stream);

}  // namespace accrete
