// Numbers that look random and are a function of where they stand alone, the same on host and device: benchmark inputs, dummy weights.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace accrete {

// Of the sum of four random bytes: sqrt(4 (256^2 - 1) / 12).
inline constexpr float kBytesDeviation = 147.79986f;

// Number `index` of the stream `key`: mean 0, standard deviation `deviation`, bell-shaped (four random bytes added up), at most 3.45
// deviations from 0.
ACCRETE_HD inline float random_value(uint64_t key, uint64_t index, float deviation) {
  const uint32_t low = static_cast<uint32_t>(key), high = static_cast<uint32_t>(key >> 32) + static_cast<uint32_t>(index >> 32) * 0x85ebca6bu;
  uint32_t x = static_cast<uint32_t>(index) * 0x9e3779b1u + low;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = ((x ^ (x >> 15)) + high) * 0x846ca68bu;
  x ^= x >> 16;
  const uint32_t pairs = (x & 0x00ff00ffu) + ((x >> 8) & 0x00ff00ffu);
  const int32_t sum = static_cast<int32_t>((pairs & 0xffffu) + (pairs >> 16));
  return static_cast<float>(sum - 510) * (deviation / kBytesDeviation);
}

}  // namespace accrete
