// The quantized blocks of GGUF, one decoder each. dst[blocks * block] floats; src needs no alignment.
//
// 32 elements, d (and m) half precision:
//   Q4_0  d | 16 x (low nibble: i, high: i + 16)                 d * (q - 8)
//   Q4_1  d m | 16 nibble pairs                                  d * q + m
//   Q5_0  d | 32 fifth bits | 16 nibble pairs                    d * (q - 16)
//   Q5_1  d m | 32 fifth bits | 16 nibble pairs                  d * q + m
//   Q8_0  d | 32 signed bytes                                    d * q
// 256 elements:
//   Q4_K  d m | 8 x (6-bit scale, 6-bit min) in 12 bytes | 128 nibble pairs          d * s * q - m * t
//   Q5_K  d m | the same 12 bytes | 256 fifth bits | 128 nibble pairs                d * s * q - m * t
//   Q6_K  128 low nibbles | 64 bytes of two high bits | 16 signed scales | d         d * s * (q - 32)
#pragma once

#include <cstdint>
#include <cstring>

namespace accrete::worker {

// Exact for every half, subnormals, infinities and NaN included, and without a branch, so that loops vectorise.
inline float half_at(const uint8_t* src) {
  uint16_t half;
  std::memcpy(&half, src, 2);
  const uint32_t magnitude = static_cast<uint32_t>(half & 0x7fffu) << 13;
  float scaled;
  std::memcpy(&scaled, &magnitude, 4);
  scaled *= 0x1p112f;  // the exponent's bias grows from 15 to 127
  uint32_t bits;
  std::memcpy(&bits, &scaled, 4);
  bits |= (half & 0x7c00u) == 0x7c00u ? 0x7f800000u : 0u;
  bits |= static_cast<uint32_t>(half & 0x8000u) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

void decode_q4_0(const uint8_t* src, int64_t blocks, float* dst);
void decode_q4_1(const uint8_t* src, int64_t blocks, float* dst);
void decode_q5_0(const uint8_t* src, int64_t blocks, float* dst);
void decode_q5_1(const uint8_t* src, int64_t blocks, float* dst);
void decode_q8_0(const uint8_t* src, int64_t blocks, float* dst);
void decode_q4_k(const uint8_t* src, int64_t blocks, float* dst);
void decode_q5_k(const uint8_t* src, int64_t blocks, float* dst);
void decode_q6_k(const uint8_t* src, int64_t blocks, float* dst);

}  // namespace accrete::worker
