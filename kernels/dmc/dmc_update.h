// DMC's cache update (Nawrot et al., arXiv 2403.09636, section 3; window as in the public checkpoints): for every token of the step,
// layer and KV head decide append or accumulate, update the open slot, take a page when a head's last page is full, rotate.
//
//   append     (alpha = 0): n += 1;  Sk = w k;   Sv = w v;   Sw = w
//   accumulate (alpha = 1):          Sk += w k;  Sv += w v;  Sw += w        over the newest `window` tokens of the segment
//   slot[n-1] = RoPE(Sk / Sw, position), Sv / Sw
//
// A plain Llama is the same op with alpha = 0, w = 1 and the last components kept (mode off).
#pragma once

#include "kernels/paging/cache_ref.h"
#include "kernels/paging/step_batch.h"
#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

enum class DmcMode : uint8_t {
  off,        // plain Llama
  learned,    // decision neuron k[D-1], importance neuron mean_g q[g][D-1]; both zeroed afterwards
  synthetic,  // decisions drawn from a counter-based stream, w = 1, last components kept; benchmarks only
};

struct DmcParams {
  DmcMode mode = DmcMode::off;
  int window = 12;               // W; 0: no limit
  float offset = 5.0f;
  bool bf16_decision = false;    // round k[D-1] to bf16 before comparing (bf16 models)
  double synthetic_cr = 1.0;     // mean over heads; each (layer, head) has a rate of its own
  uint64_t synthetic_seed = 0;
  int layer_begin = 0;           // global index of this rank's first layer and KV head, and the whole model's counts:
  int kv_head_begin = 0;         // synthetic decisions are the same for any sharding
  int model_layers = 0;
  int model_kv_heads = 0;
};

struct DmcUpdate {
  DmcParams dmc;
  StepBatch batch;
  CacheRef cache;
  int layer = 0;              // local index
  AnyView<2> qkv;             // [T, (Hq_local + 2 Hkv_local) D] projections before RoPE: q heads, k heads, v heads
  View<const float, 2> cos;   // [T, D/2]
  View<const float, 2> sin;   // [T, D/2]
  AnyView<3> q;               // [T, Hq_local, D] out, rotated
  AnyView<3> own_k;           // [T, Hkv_local, D] out: the token's slot as it stands right after the token, rotated
  AnyView<3> own_v;           // [T, Hkv_local, D] out
  View<int32_t, 2> own_slot;  // [T, Hkv_local] out: index of that slot; closed slots below it are final in the pages
  // CUDA only, in device memory:
  View<const double, 1> synthetic_rates;  // [Hkv_local] of this layer; synthetic mode
  View<float, 2> weight;                  // [Hkv_local, T] scratch of prompts: w of each token
  View<int32_t, 3> appends;               // [Hkv_local, 2, ceil(T / 32)] scratch of prompts: who appends, a bit a token, and counts
};

void dmc_update_cpu(const DmcUpdate& op, Stream& stream);
// bf16 qkv, outputs, pages and ring (sums of an unlimited window: f32), D 64, 128 or 256. For the step's first batch.decodes sequences
// own_k and own_v are left alone: their open slot is read from its page. A token whose page cannot be had flags pool.exhausted; the
// step is then void for its sequence and nothing is written out of bounds.
void dmc_update_cuda(const DmcUpdate& op, Stream& stream);

// Probability of accumulating for a global (layer, head), spread over an order of magnitude of kept slots between heads, so that the
// mean over all heads of the kept fraction is 1 / synthetic_cr. Needs model_layers and model_kv_heads.
double synthetic_rate(const DmcParams& dmc, int layer, int kv_head);

}  // namespace accrete
