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

// Few rows: own vectorised loops, weights read once. Many rows: OpenBLAS sgemm (bf16 weights widened block by block).
// The result of a row does not depend on the other rows of the call beyond which of the two paths is taken.
void linear_cpu(const Linear& op, Stream& stream);

}  // namespace accrete
