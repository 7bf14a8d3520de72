// Token embedding, vocabulary-parallel: ids outside this rank's rows give zeros, an all-reduce completes the sum.
#pragma once

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

struct Embedding {
  View<const int32_t, 1> ids;  // [T]
  AnyView<2> table;            // [V_local, E]
  int64_t vocab_begin = 0;     // first id of this rank's rows
  AnyView<2> y;                // [T, E] out
};

void embedding_cpu(const Embedding& op, Stream& stream);
void embedding_cuda(const Embedding& op, Stream& stream);  // table and y of one type, rows contiguous

}  // namespace accrete
