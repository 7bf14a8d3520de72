// Inner products of packed activation rows with weight rows: the loops below linear_cpu, one set per instruction level.
//   y[t][n] = sum_k x[t][k] w[n][k]
// Activations are packed once per call; weights stay as they are stored (f32 or bf16, widened in registers).
// Every y[t][n] is one chain of sums over k and one fixed tree over the lanes, whatever tile it falls into: the result of a row does not depend on the rows beside it, nor on how the columns were split.
#pragma once

#include <cstdint>

#include "kernels/cpu_isa.h"
#include "kernels/view.h"

namespace accrete {

struct DotOperands {
  const float* panel = nullptr;  // packed x, see DotKernels::pack
  AnyView<2> w;                  // [N, K]
  View<float, 2> y;              // [T, N] out
};

struct DotKernels {
  int64_t block_rows;                                      // rows of a packed block
  int64_t (*panel_size)(int64_t rows, int64_t depth);      // floats, 64-byte aligned

  // Packs block `block` of the rows of x [T, K], f32 or bf16, into the panel of x, for weights of type `w`.
  void (*pack)(const AnyView<2>& x, DType w, int64_t block, float* panel);
  // Columns [begin, end) of all T rows.
  void (*columns)(const DotOperands& op, int64_t begin, int64_t end);
};

// The loops of a level this processor has, for weights of a type.
const DotKernels& dot_kernels(CpuIsa isa, DType w);

extern const DotKernels kDotPortable;
extern const DotKernels kDotAvx2;
extern const DotKernels kDotAvx512;
extern const DotKernels kDotAmx;  // bf16 weights

}  // namespace accrete
