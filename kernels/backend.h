// Backend: the table of operations of one kind of device. No registry, no virtual call: a struct of function pointers.
#pragma once

#include "kernels/attention/attention.h"
#include "kernels/dmc/dmc_update.h"
#include "kernels/embedding/embedding.h"
#include "kernels/gemm/linear.h"
#include "kernels/mlp/silu_mul.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope_angles.h"

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
};

const Backend& cpu_backend();

}  // namespace accrete
