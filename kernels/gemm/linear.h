// y = x W^T, the only matrix product of a Llama.
#pragma once

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

struct Linear {
  AnyView<2> x;  // [T, K]
  AnyView<2> w;  // [N, K], rows contiguous: f32 or bf16 on the CPU, bf16 or fp8 on CUDA
  AnyView<2> y;  // [T, N] out, f32 on the CPU, bf16 or f32 on CUDA

  // fp8 weights, each with a factor to every output: y[t][n] = x_scale[t] w_scale[n] sum_k x8[t][k] w[n][k].
  View<const float, 1> w_scale = {};  // [N], from quantize_fp8
  View<fp8, 2> x8 = {};               // [T, K] scratch of the caller: x rounded, contiguous; not used when x is fp8 already
  View<float, 1> x_scale = {};        // [T] scratch for the factors of x8; given when x is fp8 already
  // false: y is left as the bare sums, and whoever reads it multiplies by x_scale[t] w_scale[n].
  bool scaled = true;
};

// Own loops (AMX for bf16 weights, AVX-512, AVX2, portable), which read each weight once for several rows; many rows on a
// processor without AVX-512: OpenBLAS sgemm, bf16 weights widened slice by slice. fp32 products and sums throughout. The
// result of a row does not depend on the other rows of the call beyond which of the two is taken: with AVX-512 not at all.
void linear_cpu(const Linear& op, Stream& stream);

// cuBLASLt by the plans of stream.gemm: x and w bf16, or w fp8 and x either; fp32 sums. K and N are multiples of 8, of 16 for
// fp8, w is contiguous; pointers and rows of x and y begin at multiples of 16 bytes. The result of a row depends on T, which
// decides the order of the sums. Can be captured in a graph, best after a first call outside, which loads the kernels.
void linear_cuda(const Linear& op, Stream& stream);

}  // namespace accrete
