#include <algorithm>

#include "kernels/sampling/join_logits.h"
#include "kernels/thread_pool.h"

namespace accrete {

void join_logits_cpu(const JoinLogits& op, Stream& stream) {
  const auto shards = op.parts.shape[0];
  CHECK(shards <= kMostVocabularyShards && op.begin[shards] == op.logits.shape[1], shards, op.begin[shards], op.logits.shape[1]);
  stream.pool->run(op.logits.shape[0], [&](int64_t row) {
    for (int64_t r = 0; r < shards; ++r) std::copy_n(&op.parts(r, row, 0), op.begin[r + 1] - op.begin[r], &op.logits(row, op.begin[r]));
  });
}

}  // namespace accrete
