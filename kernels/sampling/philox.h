// Philox 4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): a counter-based generator, so a
// random number is a function of what it is for, not of what was drawn before. The same on host and device.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace accrete {

struct PhiloxBlock {
  uint32_t word[4];
};

// The ten rounds: counter (128 bits, least significant word first) and key to four random words.
ACCRETE_HD inline PhiloxBlock philox_4x32(PhiloxBlock counter, uint32_t key0, uint32_t key1) {
  constexpr int kRounds = 10;
  for (int round = 0; round < kRounds; ++round) {
    const uint64_t product0 = uint64_t{0xD2511F53u} * counter.word[0];
    const uint64_t product1 = uint64_t{0xCD9E8D57u} * counter.word[2];
    counter = {{static_cast<uint32_t>(product1 >> 32) ^ counter.word[1] ^ key0, static_cast<uint32_t>(product1),
                static_cast<uint32_t>(product0 >> 32) ^ counter.word[3] ^ key1, static_cast<uint32_t>(product0)}};
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
  return counter;
}

// 52 random bits of a block as a uniform in (0, 1): neither end can occur (with 53, adding the half could round up to 1).
ACCRETE_HD inline double philox_unit(const PhiloxBlock& block) {
  const uint64_t bits = (uint64_t{block.word[1]} << 32 | block.word[0]) >> 12;
  return (static_cast<double>(bits) + 0.5) * 0x1p-52;
}

}  // namespace accrete
