// Which tokens of a step's prompts append, a bit each: 32 tokens a word, words at multiples of 32 tokens of the step. What a token needs to
// know of the tokens before it, its slot and its age, are counts of bits. Made by decide_kernel and count_kernel (dmc_prompt.cu).
#pragma once

#include <cstdint>

#include "kernels/dmc/update_args.cuh"

namespace accrete {

inline constexpr int kWordTokens = 32;
inline constexpr int kMostWindow = 64;  // what fits the two words before a token's own

__device__ inline int words_of(const UpdateArgs& a) { return (a.tokens + kWordTokens - 1) / kWordTokens; }

// Bits from token `begin` on, and before token `end`, of the word whose first token is `first`.
__device__ inline uint32_t bits_from(int begin, int first) {
  const int skipped = max(begin - first, 0);
  return skipped < kWordTokens ? 0xffffffffu << skipped : 0u;
}
__device__ inline uint32_t bits_before(int end, int first) {
  const int kept = min(end - first, kWordTokens);
  return kept > 0 ? 0xffffffffu >> (kWordTokens - kept) : 0u;
}

// One head's words.
struct AppendBits {
  uint32_t* word;   // [words]
  uint32_t* slots;  // [words] slots of the sequence at the word's first token, before that token

  __device__ AppendBits(const UpdateArgs& a, int head) : word(a.appends + static_cast<int64_t>(head) * 2 * words_of(a)), slots(word + words_of(a)) {}

  // Slots after token t of a sequence that begins at token `begin` of the step with `before` slots.
  __device__ int slots_after(int t, int begin, int before) const {
    const int index = t / kWordTokens, first = index * kWordTokens;
    const uint32_t mine = word[index] & bits_from(begin, first) & bits_before(t + 1, first);
    return __popc(mine) + (begin > first ? before : static_cast<int>(slots[index]));
  }
};

}  // namespace accrete
