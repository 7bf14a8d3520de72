// The three kernels behind sample_cuda and score_cuda, in the order in which they run.
#pragma once

#include "kernels/sampling/sample_device.h"

namespace accrete {

// Rows that want nothing but their largest logit: parts of it into tables.greedy_parts. The parts a row is cut into depend on n and
// V alone.
int greedy_parts(int64_t n, int64_t vocabulary);
void find_largest(const SampleDevice& op, Stream& stream);
// Every row's token, from the parts or from its edited and filtered logits; the statistics; the outputs' values without logprobs.
void choose_tokens(const SampleDevice& op, Stream& stream);
// Logprobs of the rows that want them.
void score_tokens(const SampleDevice& op, Stream& stream);

}  // namespace accrete
