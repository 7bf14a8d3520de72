// The tokens of one step: T tokens, ragged over the step's sequences. Every op that reads or writes caches takes it.
#pragma once

#include "kernels/view.h"

namespace accrete {

struct StepBatch {
  View<const int32_t, 1> row;          // [B_step] each sequence's row in the cache tables
  View<const int32_t, 1> token_begin;  // [B_step + 1] prefix sums: sequence i owns tokens [token_begin[i], token_begin[i+1])
  View<const int32_t, 1> position;     // [T] absolute position of each token
  View<const uint64_t, 1> sequence_key;  // [B_step] key of the synthetic decision stream (stable over preemption and moves)
  int64_t sequences() const { return row.shape[0]; }
  int64_t tokens() const { return position.shape[0]; }
};

}  // namespace accrete
