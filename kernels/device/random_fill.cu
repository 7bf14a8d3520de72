#include "kernels/cuda.h"
#include "kernels/device/random_fill.h"
#include "kernels/device/random_value.h"

namespace accrete {
namespace {

constexpr int kThreads = 256;
constexpr int kVectorBytes = 16;

struct Fill {
  void* values;
  int64_t count;
  uint64_t key;
  int64_t first;
  float deviation;
};

// A thread writes 16 bytes, in one store but at the end.
template <class T>
__global__ void __launch_bounds__(kThreads) fill_kernel(const Fill fill) {
  constexpr int kEach = kVectorBytes / sizeof(T);
  struct alignas(kVectorBytes) Piece { T value[kEach]; };
  const int64_t begin = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kEach;
  if (begin >= fill.count) return;
  T* to = static_cast<T*>(fill.values) + begin;
  Piece piece;
#pragma unroll
  for (int i = 0; i < kEach; ++i) piece.value[i] = T(random_value(fill.key, static_cast<uint64_t>(fill.first + begin + i), fill.deviation));
  if (begin + kEach <= fill.count) {
    *reinterpret_cast<Piece*>(to) = piece;
    return;
  }
  for (int i = 0; begin + i < fill.count; ++i) to[i] = piece.value[i];
}

template <class T>
void launch(const Fill& fill, cudaStream_t stream) {
  constexpr int64_t kBlock = kThreads * (kVectorBytes / sizeof(T));
  const int64_t blocks = (fill.count + kBlock - 1) / kBlock;
  CHECK(blocks <= INT32_MAX, fill.count);
  fill_kernel<T><<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(fill);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void fill_random_cuda(const RandomFill& op, Stream& stream) {
  const AnyView<1>& values = op.values;
  if (values.shape[0] == 0) return;
  CHECK(values.stride[0] == 1 && reinterpret_cast<uintptr_t>(values.data) % kVectorBytes == 0, values.stride[0], values.data);
  const Fill fill{values.data, values.shape[0], op.key, op.first, op.deviation};
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (values.dtype == DType::bf16) return launch<bf16>(fill, cuda);
  if (values.dtype == DType::fp8) return launch<fp8>(fill, cuda);
  CHECK(values.dtype == DType::f32, name_of(values.dtype));
  launch<float>(fill, cuda);
}

}  // namespace accrete
