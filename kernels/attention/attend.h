// The inner loops of attention on the CPU, one set per instruction level: a few query rows against a run of slots.
#pragma once

#include <cstdint>

#include "kernels/cpu_isa.h"

namespace accrete {

inline constexpr int kAttendSlots = 128;  // slots of one call at most: their scores stay in the first-level cache

// Rows of queries of one KV head with their running softmax (Milakov and Gimelshein 2018, as in FlashAttention):
//   m = max score, l = sum exp(score - m), o = sum exp(score - m) v
struct AttendRows {
  const float* q = nullptr;        // [R, D] at q_stride
  int64_t q_stride = 0;
  const int32_t* limit = nullptr;  // [R] slots each row may see, counted from `first`'s zero
  int64_t rows = 0;                // R
  int64_t size = 0;                // D
  float scale = 1.0f;
  float* m = nullptr;              // [R]
  float* l = nullptr;              // [R]
  float* o = nullptr;              // [R, D] contiguous
};

// Slots [first, first + count) of one head; keys[i], values[i] point to slot first + i, contiguous in runs of `run` slots.
struct AttendSlots {
  const float* const* keys = nullptr;    // [ceil(count / run)] start of each run, [run, D]
  const float* const* values = nullptr;  // the same
  int64_t run = 0;
  int64_t first = 0;
  int64_t count = 0;  // <= kAttendSlots
};

using AttendFn = void (*)(const AttendRows& rows, const AttendSlots& slots);

// The loops of a level this processor has.
AttendFn attend(CpuIsa isa);

void attend_portable(const AttendRows& rows, const AttendSlots& slots);
void attend_avx2(const AttendRows& rows, const AttendSlots& slots);
void attend_avx512(const AttendRows& rows, const AttendSlots& slots);

}  // namespace accrete
