// RMSNorm, with the residual addition that always precedes it in a Llama block.
//   x[t] += delta[t]                     (when delta is given)
//   y[t][e] = x[t][e] / sqrt(mean_e x[t][e]^2 + eps) * weight[e]
#pragma once

#include "kernels/gemm/fp8_rows.h"
#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

constexpr int64_t kWidestFp8Norm = 16384;

struct RmsNorm {
  AnyView<2> x;       // [T, E] residual stream, updated in place when delta is given
  AnyView<2> delta;   // [T, E] added to x first; data == nullptr: none
  AnyView<1> weight;  // [E]
  AnyView<2> y;       // [T, E] out; beside y8 data == nullptr: not wanted
  float eps = 1e-5f;

  // Between fp8 products, on CUDA: bf16, f32 weights, E a multiple of 16 up to kWidestFp8Norm, rows at multiples of 16 bytes.
  Factors delta_factors = {};  // of delta
  Fp8Rows y8 = {};             // y rounded further
};

void rms_norm_cpu(const RmsNorm& op, Stream& stream);
void rms_norm_cuda(const RmsNorm& op, Stream& stream);

}  // namespace accrete
