// Attention of the step's tokens over compressed caches, decode and prompt alike (dmc.md, prefill in one pass): token t attends to
// the final entries of slots 0 .. own_slot[t]-1, read from pages, and to its own entry own_k[t], own_v[t].
//   out[t][h] = softmax(q[t][h] . K / sqrt(D)) V, no mask, no positional correction
#pragma once

#include "kernels/attention/decode_plan.h"
#include "kernels/paging/cache_ref.h"
#include "kernels/paging/step_batch.h"
#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

struct Attention {
  StepBatch batch;
  CacheRef cache;                  // after dmc_update of this layer
  int layer = 0;                   // local index
  AnyView<3> q;                    // [T, Hq_local, D] rotated
  AnyView<3> own_k;                // [T, Hkv_local, D]
  AnyView<3> own_v;                // [T, Hkv_local, D]
  View<const int32_t, 2> own_slot; // [T, Hkv_local]
  AnyView<3> out;                  // [T, Hq_local, D]
  const DecodePlan* plan = nullptr;  // CUDA: made for this step by plan_decode_cuda, which a step without decodes may leave out
};

void attention_cpu(const Attention& op, Stream& stream);
// bf16 q, own entries, pages and out; D 64 or 128; page_slots a multiple of 16; G at most 64. The step's first batch.decodes sequences take the
// decode kernel, which reads the open slot from its page, the others the prompt kernel. Rows of padding are left alone.
void attention_cuda(const Attention& op, Stream& stream);

}  // namespace accrete
