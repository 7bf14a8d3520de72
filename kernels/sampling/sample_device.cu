#include "kernels/sampling/sample_device.h"

#include "kernels/sampling/device_row.cuh"
#include "kernels/sampling/device_steps.h"

namespace accrete {
namespace {

constexpr int kLargestSlice = 49152;  // logits in a block's shared memory: 192 KiB
constexpr int kGoodSlice = 24576;     // up to which a multiprocessor holds two blocks
constexpr int kLeastSlice = 2048;     // below it a larger cluster costs more barriers than it saves
constexpr int64_t kBlocks = 2 * 132;  // what an H100 holds at once
static_assert(kMostVocabulary == int64_t{kMostCluster} * kLargestSlice);

}  // namespace

LogitRows logit_rows(const View<const float, 2>& logits) {
  CHECK(logits.stride[1] == 1 && logits.shape[1] > 0 && logits.shape[1] <= kMostVocabulary, logits.stride[1], logits.shape[1]);
  const bool vectors = logits.shape[1] % 4 == 0 && logits.stride[0] % 4 == 0 && reinterpret_cast<uintptr_t>(logits.data) % 16 == 0;
  return {logits.data, logits.stride[0], static_cast<int>(logits.shape[1]), vectors};
}

int blocks_of_row(int64_t n, int vocabulary) {
  int blocks = 1;
  while (blocks < kMostCluster && slice_length(vocabulary, blocks) > kGoodSlice) blocks *= 2;
  while (blocks < kMostCluster && n * blocks * 2 <= kBlocks && vocabulary / (blocks * 2) >= kLeastSlice) blocks *= 2;
  return blocks;
}

void sample_cuda(const SampleDevice& op, Stream& stream) {
  const int64_t n = op.logits.shape[0];
  if (n == 0) return;
  const SamplerTables& tables = op.tables;
  CHECK(n <= tables.row_count && op.logits.shape[1] == tables.vocabulary, n, tables.row_count, op.logits.shape[1], tables.vocabulary);
  CHECK(tables.rows && tables.edits && tables.prompt_bits && tables.counts && tables.greedy_parts, tables.row_count);
  CHECK(op.state_row && op.position && op.token && op.logprob && op.rank && op.top_tokens && op.top_logprobs, n);
  find_largest(op, stream);
  choose_tokens(op, stream);
  score_tokens(op, stream);
}

}  // namespace accrete
