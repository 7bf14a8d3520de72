#include "worker/model/encoding_blocks.h"

namespace accrete::worker {
namespace {

// dst[0..15] = d * low nibbles + m, dst[16..31] = d * high nibbles + m
void decode_nibbles(const uint8_t* nibbles, float d, float m, float* dst) {
  for (int i = 0; i < 16; ++i) {
    dst[i] = d * static_cast<float>(nibbles[i] & 15) + m;
    dst[i + 16] = d * static_cast<float>(nibbles[i] >> 4) + m;
  }
}

// The same with bit i of `fifth` above element i's nibble.
void decode_five_bits(const uint8_t* nibbles, uint32_t fifth, float d, float m, float* dst) {
  for (int i = 0; i < 16; ++i) {
    const uint32_t low = (nibbles[i] & 15u) | (((fifth >> i) & 1u) << 4);
    const uint32_t high = (nibbles[i] >> 4) | (((fifth >> (i + 16)) & 1u) << 4);
    dst[i] = d * static_cast<float>(static_cast<int>(low)) + m;
    dst[i + 16] = d * static_cast<float>(static_cast<int>(high)) + m;
  }
}

uint32_t word_at(const uint8_t* src) {
  uint32_t word;
  std::memcpy(&word, src, 4);
  return word;
}

struct ScaleAndMin {
  int scale, min;
};

// Group j of 8: six bits each, the last four groups' upper two bits tucked into the first eight bytes.
ScaleAndMin six_bits(const uint8_t* packed, int j) {
  if (j < 4) return {packed[j] & 63, packed[j + 4] & 63};
  return {(packed[j + 4] & 15) | ((packed[j - 4] >> 6) << 4), (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4)};
}

}  // namespace

void decode_q4_0(const uint8_t* src, int64_t blocks, float* dst) {
  for (int64_t b = 0; b < blocks; ++b, src += 18, dst += 32) {
    const float d = half_at(src);
    decode_nibbles(src + 2, d, -8.0f * d, dst);
  }
}

void decode_q4_1(const uint8_t* src, int64_t blocks, float* dst) {
  for (int64_t b = 0; b < blocks; ++b, src += 20, dst += 32)
    decode_nibbles(src + 4, half_at(src), half_at(src + 2), dst);
}

void decode_q5_0(const uint8_t* src, int64_t blocks, float* dst) {
  for (int64_t b = 0; b < blocks; ++b, src += 22, dst += 32) {
    const float d = half_at(src);
    decode_five_bits(src + 6, word_at(src + 2), d, -16.0f * d, dst);
  }
}

void decode_q5_1(const uint8_t* src, int64_t blocks, float* dst) {
  for (int64_t b = 0; b < blocks; ++b, src += 24, dst += 32) {
    decode_five_bits(src + 8, word_at(src + 4), half_at(src), half_at(src + 2), dst);
  }
}

void decode_q8_0(const uint8_t* src, int64_t blocks, float* dst) {
  for (int64_t b = 0; b < blocks; ++b, src += 34, dst += 32) {
    const float d = half_at(src);
    for (int i = 0; i < 32; ++i) dst[i] = d * static_cast<float>(static_cast<int8_t>(src[2 + i]));
  }
}

void decode_q4_k(const uint8_t* src, int64_t blocks, float* dst) {
  for (int64_t b = 0; b < blocks; ++b, src += 144, dst += 256) {
    const float d = half_at(src), m = half_at(src + 2);
    for (int j = 0; j < 8; ++j) {  // group j: the low (even j) or high (odd) nibbles of 32 bytes
      const ScaleAndMin group = six_bits(src + 4, j);
      const float scale = d * static_cast<float>(group.scale), min = m * static_cast<float>(group.min);
      const uint8_t* nibbles = src + 16 + 32 * (j / 2);
      const int shift = 4 * (j & 1);
      for (int i = 0; i < 32; ++i) dst[32 * j + i] = scale * static_cast<float>((nibbles[i] >> shift) & 15) - min;
    }
  }
}

void decode_q5_k(const uint8_t* src, int64_t blocks, float* dst) {
  for (int64_t b = 0; b < blocks; ++b, src += 176, dst += 256) {
    const float d = half_at(src), m = half_at(src + 2);
    const uint8_t* fifth = src + 16;  // bit j of byte i: element i of group j
    for (int j = 0; j < 8; ++j) {
      const ScaleAndMin group = six_bits(src + 4, j);
      const float scale = d * static_cast<float>(group.scale), min = m * static_cast<float>(group.min);
      const uint8_t* nibbles = src + 48 + 32 * (j / 2);
      const int shift = 4 * (j & 1);
      for (int i = 0; i < 32; ++i) {
        const int q = ((nibbles[i] >> shift) & 15) | (((fifth[i] >> j) & 1) << 4);
        dst[32 * j + i] = scale * static_cast<float>(q) - min;
      }
    }
  }
}

void decode_q6_k(const uint8_t* src, int64_t blocks, float* dst) {
  for (int64_t b = 0; b < blocks; ++b, src += 210, dst += 256) {
    const float d = half_at(src + 208);
    for (int j = 0; j < 8; ++j) {  // group j: 32 elements, two scales; half h of the block has groups 4h..4h+3
      const int h = j / 4, quarter = j % 4;
      const uint8_t* low = src + 64 * h + 32 * (quarter & 1);
      const uint8_t* high = src + 128 + 32 * h;
      const int low_shift = 4 * (quarter / 2), high_shift = 2 * quarter;
      for (int i = 0; i < 32; ++i) {
        const auto scale = static_cast<int8_t>(src[192 + 2 * j + i / 16]);
        const int q = ((low[i] >> low_shift) & 15) | (((high[i] >> high_shift) & 3) << 4);
        dst[32 * j + i] = d * static_cast<float>(scale) * static_cast<float>(q - 32);
      }
    }
  }
}

}  // namespace accrete::worker
