// The tokens of one step: T tokens, ragged over the step's sequences. Every op that reads or writes caches takes it.
#pragma once

#include "kernels/view.h"

namespace accrete {

struct StepBatch {
  View<const int32_t, 1> row;          // [B_step] each sequence's row in the cache tables; CUDA: negative for padding, whose results are void
  View<const int32_t, 1> token_begin;  // [B_step + 1] prefix sums: sequence i owns tokens [token_begin[i], token_begin[i+1])
  View<const int32_t, 1> position;     // [T] absolute position of each token
  View<const uint64_t, 1> sequence_key;  // [B_step] key of the synthetic decision stream (stable over preemption and moves)
  // CUDA ops only (there the views are device memory, which the host does not read):
  View<const int32_t, 1> sequence;       // [T] each token's sequence
  int64_t decodes = 0;                   // the first sequences of the step that have exactly one token each and earlier ones cached
  int64_t most_tokens = 0;               // tokens of the longest sequence of the step
  int prompt_share = 0;                  // multiprocessors that attend to prompts while the others attend to decodes; 0: all do one after the other
  int64_t sequences() const { return row.shape[0]; }
  int64_t tokens() const { return position.shape[0]; }
};

}  // namespace accrete
