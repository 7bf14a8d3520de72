// y = x W^T, the only matrix product of a Llama.
#pragma once

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

struct Linear {
  AnyView<2> x;  // [T, K]
  AnyView<2> w;  // [N, K], rows contiguous: f32 or bf16 on the CPU
  AnyView<2> y;  // [T, N] out, f32 on the CPU
};

// Own loops (AMX for bf16 weights, AVX-512, AVX2, portable), which read each weight once for several rows; many rows on a
// processor without AVX-512: OpenBLAS sgemm, bf16 weights widened slice by slice. fp32 products and sums throughout. The
// result of a row does not depend on the other rows of the call beyond which of the two is taken: with AVX-512 not at all.
void linear_cpu(const Linear& op, Stream& stream);

}  // namespace accrete
