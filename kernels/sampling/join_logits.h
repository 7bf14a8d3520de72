// The logits of several vocabulary shards side by side: logits[i][begin[r] + v] = parts[r][i][v].
#pragma once

#include <array>
#include <cstdint>

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

inline constexpr int kMostVocabularyShards = 64;

struct JoinLogits {
  View<const float, 3> parts;  // [R, n, V_padded], contiguous
  View<float, 2> logits;       // [n, V] out, contiguous
  std::array<int32_t, kMostVocabularyShards + 1> begin{};  // [R + 1] first token of each shard; begin[R] = V
};

void join_logits_cpu(const JoinLogits& op, Stream& stream);
void join_logits_cuda(const JoinLogits& op, Stream& stream);

}  // namespace accrete
