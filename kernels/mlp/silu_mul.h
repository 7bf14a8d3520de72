// y = silu(gate) * up, silu(g) = g / (1 + exp(-g))
#pragma once

#include "kernels/gemm/fp8_rows.h"
#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

constexpr int64_t kWidestFp8Mlp = 28672;

struct SiluMul {
  AnyView<2> gate_up;  // [T, 2 F_local]: gate in the first half of a row, up in the second
  AnyView<2> y;        // [T, F_local] out; beside y8 data == nullptr: not wanted

  // Between fp8 products, on CUDA: bf16, F_local a multiple of 16 up to kWidestFp8Mlp, rows at multiples of 16 bytes.
  Factors factors = {};  // of gate_up; only beside y8
  Fp8Rows y8 = {};       // y rounded further
};

void silu_mul_cpu(const SiluMul& op, Stream& stream);
void silu_mul_cuda(const SiluMul& op, Stream& stream);  // gate_up and y of one type, f32 or bf16

}  // namespace accrete
