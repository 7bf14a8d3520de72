// The tokens that rows of the cache sampled last, kept on the device: the next step can be enqueued before the host has read them.
#pragma once

#include <cstdint>

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

// ids[t] < 0 becomes row_token of the token's row.
struct ReadRowTokens {
  View<int32_t, 1> ids;             // [T] in place
  View<const int32_t, 1> sequence;  // [T] each token's sequence
  View<const int32_t, 1> row;       // [B_step] each sequence's row; negative: padding, whose ids are left alone
  const int32_t* row_token = nullptr;
};
void read_row_tokens_cuda(const ReadRowTokens& op, Stream& stream);

// row_token[row[i]] = token[i], where row[i] >= 0; rows are distinct.
struct WriteRowTokens {
  View<const int32_t, 1> token;  // [n]
  View<const int32_t, 1> row;    // [n]
  int32_t* row_token = nullptr;
};
void write_row_tokens_cuda(const WriteRowTokens& op, Stream& stream);

}  // namespace accrete
