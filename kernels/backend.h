// Backend: the table of operations of one kind of device. No registry, no virtual call: a struct of function pointers.
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/dmc/dmc_update.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gemm/linear.h"
#include "kernels/mlp/silu_mul.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope_angles.h"
#include "kernels/sampling/join_logits.h"

namespace accrete {

struct Backend {
  const char* name;
  void (*embedding)(const Embedding&, Stream&);
  void (*rms_norm)(const RmsNorm&, Stream&);
  void (*linear)(const Linear&, Stream&);
  void (*rope_angles)(const RopeAngles&, Stream&);
  void (*dmc_update)(const DmcUpdate&, Stream&);
  void (*attention)(const Attention&, Stream&);
  void (*silu_mul)(const SiluMul&, Stream&);
  void (*join_logits)(const JoinLogits&, Stream&);
  // Before a step's first layer; null where attention needs no plan.
  void (*plan_decode)(const DecodePlan&, const StepBatch&, const CacheRef&, Stream&);
};

const Backend& cpu_backend();
const Backend& cuda_backend();  // exists in builds with CUDA

}  // namespace accrete
