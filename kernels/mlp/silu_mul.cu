// Memory-bound: 2 F read, F written a row.
#include "kernels/cuda.h"
#include "kernels/mlp/gated.cuh"
#include "kernels/mlp/silu_mul.h"
#include "kernels/mlp/silu_mul_fp8.h"

namespace accrete {
namespace {

constexpr int kThreads = 256;

template <int kVector, class T>
struct alignas(kVector * sizeof(T)) Pack {
  T value[kVector];
};

// Grid: [rows, blocks of a row]; one thread a vector of outputs. width: vectors of a row.
template <int kVector, class T>
__global__ void __launch_bounds__(kThreads) silu_mul_kernel(const T* gate_up, T* y, int width, int64_t in_stride, int64_t out_stride) {
  const int column = blockIdx.y * kThreads + threadIdx.x;
  if (column >= width) return;
  using Vector = Pack<kVector, T>;
  const T* row = gate_up + blockIdx.x * in_stride + column * kVector;
  const Vector gate = *reinterpret_cast<const Vector*>(row), up = *reinterpret_cast<const Vector*>(row + width * kVector);
  Vector out;
#pragma unroll
  for (int i = 0; i < kVector; ++i) out.value[i] = static_cast<T>(gated(static_cast<float>(gate.value[i]), static_cast<float>(up.value[i])));
  *reinterpret_cast<Vector*>(y + blockIdx.x * out_stride + column * kVector) = out;
}

template <int kVector, class T>
void launch(const SiluMul& op, cudaStream_t stream) {
  const int width = static_cast<int>(op.y.shape[1] / kVector);
  const dim3 grid(static_cast<unsigned>(op.y.shape[0]), (width + kThreads - 1) / kThreads);
  silu_mul_kernel<kVector, T><<<grid, kThreads, 0, stream>>>(static_cast<const T*>(op.gate_up.data), static_cast<T*>(op.y.data), width, op.gate_up.stride[0],
                                                            op.y.stride[0]);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

template <class T>
void launch_any(const SiluMul& op, cudaStream_t stream) {
  constexpr int kVector = 16 / sizeof(T);
  const bool vectors = op.y.shape[1] % kVector == 0 && op.gate_up.stride[0] % kVector == 0 && op.y.stride[0] % kVector == 0;
  if (vectors) return launch<kVector, T>(op, stream);
  launch<1, T>(op, stream);
}

}  // namespace

void silu_mul_cuda(const SiluMul& op, Stream& stream) {
  if (op.y8.values.data) return silu_mul_fp8_cuda(op, stream);
  CHECK(!op.factors.rows.data);  // nobody wants them without fp8 rows
  CHECK(op.gate_up.shape[1] == 2 * op.y.shape[1] && op.gate_up.shape[0] == op.y.shape[0], op.gate_up.shape[1], op.y.shape[1]);
  CHECK(op.gate_up.dtype == op.y.dtype, name_of(op.gate_up.dtype), name_of(op.y.dtype));
  if (op.y.shape[0] == 0 || op.y.shape[1] == 0) return;
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (op.y.dtype == DType::bf16) return launch_any<bf16>(op, cuda);
  CHECK(op.y.dtype == DType::f32, name_of(op.y.dtype));
  launch_any<float>(op, cuda);
}

}  // namespace accrete
