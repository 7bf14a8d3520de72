// The decisions of DMC, alone: append or accumulate, and with which weight.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernels/dmc/dmc_update.h"
#include "kernels/sampling/philox.h"

namespace accrete {

// One token's decision for one KV head.
struct Decision {
  bool accumulate = false;  // alpha
  float weight = 1.0f;      // w
};

// 2^-7, bf16's epsilon, in every precision: no token's weight vanishes.
inline constexpr float kWeightFloor = 0x1p-7f;

// alpha = [k[D-1] > offset];  w = sigmoid(importance + offset) + 2^-7, importance = mean over the group of q[g][D-1].
ACCRETE_HD inline Decision decide_learned(const DmcParams& dmc, float decision, float importance) {
  if (dmc.bf16_decision) decision = static_cast<float>(bf16(decision));
  return {decision - dmc.offset > 0.0f, 1.0f / (1.0f + std::exp(-(importance + dmc.offset))) + kWeightFloor};
}

// A draw from the stream of (seed, sequence, layer, head, position): the same on every device, for every sharding, after every move.
struct SyntheticDraw {
  uint64_t sequence_key;
  int layer, kv_head;  // global
  int64_t position;
};
ACCRETE_HD inline Decision decide_synthetic(const DmcParams& dmc, const SyntheticDraw& draw, double rate) {
  const uint64_t key = draw.sequence_key ^ (dmc.synthetic_seed * 0x9E3779B97F4A7C15ull);
  const PhiloxBlock counter{{static_cast<uint32_t>(draw.position), static_cast<uint32_t>(draw.layer), static_cast<uint32_t>(draw.kv_head), 0x444d43u}};
  const double uniform = philox_unit(philox_4x32(counter, static_cast<uint32_t>(key), static_cast<uint32_t>(key >> 32)));
  return {uniform < rate, 1.0f};
}

}  // namespace accrete
