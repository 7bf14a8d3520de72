// silu_mul_cuda's other half: what it does when factors of gate_up or fp8 rows are asked for (silu_mul_fp8.cu).
#pragma once

#include "kernels/mlp/silu_mul.h"

namespace accrete {

void silu_mul_fp8_cuda(const SiluMul& op, Stream& stream);

}  // namespace accrete
