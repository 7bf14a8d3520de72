// How the multiprocessors divide between the prompts and the decodes of a step. Decode attention waits for memory and is as fast on two thirds of
// them; a piece of a prompt computes, and rarely has items for all: side by side the shorter of the two costs little.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/attention/decode_plan.h"

namespace accrete {

// How prompt attention cuts its work (prompt_items.cuh): items of so many rows, which see tiles of so many slots.
inline constexpr int kPromptItemRows = 128, kPromptTileSlots = 128;

// A step's attention as the host knows it: tokens instead of slots, as if nothing had been merged.
struct AttentionLoad {
  struct Prompt {
    int64_t tokens = 0;
    int64_t earlier = 0;  // tokens of the sequence before them
  };
  int64_t decode_tokens = 0;  // in the caches of all decodes
  std::vector<Prompt> prompts;
};

// StepBatch::prompt_share: the one that should end both soonest; 0 where one after the other does, or one kind is missing.
int prompt_share(const DecodePlanShape& shape, const AttentionLoad& load);

}  // namespace accrete
