// y = silu(gate) * up, silu(g) = g / (1 + exp(-g))
#pragma once

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

struct SiluMul {
  AnyView<2> gate_up;  // [T, 2 F_local]: gate in the first half of a row, up in the second
  AnyView<2> y;        // [T, F_local] out
};

void silu_mul_cpu(const SiluMul& op, Stream& stream);
void silu_mul_cuda(const SiluMul& op, Stream& stream);  // gate_up and y of one type, f32 or bf16

}  // namespace accrete
