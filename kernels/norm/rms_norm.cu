// RMSNorm with residual addition on CUDA. Memory-bound: x and delta are read once, x and y written once. A block takes a row;
// each thread keeps its part of it in registers between the sum of squares and the scaling, so nothing is read twice. Few rows wait for
// memory, not for its bandwidth: all their loads are issued before anything is stored.
#include "kernels/cuda.h"
#include "kernels/norm/norm_rows.cuh"
#include "kernels/norm/rms_norm.h"
#include "kernels/norm/rms_norm_fp8.h"

namespace accrete {
namespace {

constexpr int kThreads = kNormThreads;
constexpr int kMostChunks = 4;  // 16-byte pieces of a row a thread keeps; longer rows are read again
constexpr int kVectorBytes = 16;
constexpr unsigned kFewRows = 2 * 132;  // that all run at once whatever registers they take

struct Rows {
  void* x;
  const void* delta;
  const void* weight;
  void* y;
  int64_t x_stride, delta_stride, y_stride;  // elements between rows
  int width;                                 // E
  float eps;
};

// kCount consecutive elements as floats, in accesses of at most 16 bytes.
template <int kCount, class T>
__device__ void load(const T* from, float (&to)[kCount]) {
  constexpr int kBytes = kCount * sizeof(T) < kVectorBytes ? kCount * sizeof(T) : kVectorBytes;
  constexpr int kEach = kBytes / sizeof(T);
  struct alignas(kBytes) Piece { T value[kEach]; };
#pragma unroll
  for (int i = 0; i < kCount; i += kEach) {
    const Piece piece = *reinterpret_cast<const Piece*>(from + i);
#pragma unroll
    for (int j = 0; j < kEach; ++j) to[i + j] = static_cast<float>(piece.value[j]);
  }
}

// Stores kCount floats as T and leaves in `from` what was stored, rounded.
template <int kCount, class T>
__device__ void store(T* to, float (&from)[kCount]) {
  struct alignas(kCount * sizeof(T)) Piece { T value[kCount]; } piece;
#pragma unroll
  for (int i = 0; i < kCount; ++i) {
    piece.value[i] = static_cast<T>(from[i]);
    from[i] = static_cast<float>(piece.value[i]);
  }
  *reinterpret_cast<Piece*>(to) = piece;
}

template <int kVector, class T>
__device__ void add_and_store(T* x, const float (&rDelta)[kVector], float (&rX)[kVector]) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) rX[i] += rDelta[i];
  store(x, rX);
}

// x + delta of one chunk, stored back when there is a delta.
template <int kVector, class T>
__device__ void updated(T* x, const T* delta, float (&rX)[kVector]) {
  load(x, rX);
  if (!delta) return;
  float rDelta[kVector];
  load(delta, rDelta);
  add_and_store(x, rDelta, rX);
}

// y = x * scale * weight; leaves y in rWeight.
template <int kVector, class T>
__device__ void scaled(const float (&rX)[kVector], float scale, float (&rWeight)[kVector], T* y) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) rWeight[i] *= rX[i] * scale;
  store(y, rWeight);
}

template <int kVector>
__device__ void add_squares(const float (&rX)[kVector], float& squares) {
#pragma unroll
  for (int i = 0; i < kVector; ++i) squares += rX[i] * rX[i];
}

// What a thread of a row with kChunks chunks a thread does with each of its chunks.
template <int kVector, int kChunks, class F>
__device__ void each_chunk(int width, const F& body) {
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int e = static_cast<int>(threadIdx.x) * kVector + chunk * kThreads * kVector;
    if (e < width) body(chunk, e);
  }
}

template <class T, class W>
struct Row {
  T* x;
  const T* delta;  // or null
  const W* weight;
  T* y;
  int width;
  float eps;
};

template <class T, class W>
__device__ Row<T, W> own_row(const Rows& rows) {
  return {static_cast<T*>(rows.x) + blockIdx.x * rows.x_stride, rows.delta ? static_cast<const T*>(rows.delta) + blockIdx.x * rows.delta_stride : nullptr,
          static_cast<const W*>(rows.weight), static_cast<T*>(rows.y) + blockIdx.x * rows.y_stride, rows.width, rows.eps};
}

// Grid: one block a row.
template <int kVector, int kChunks, class T, class W>
__global__ void __launch_bounds__(kThreads) rms_norm_few_kernel(Rows rows) {
  const auto [gX, gDelta, gWeight, gY, width, eps] = own_row<T, W>(rows);
  float rX[kChunks][kVector], rDelta[kChunks][kVector], rWeight[kChunks][kVector];
  each_chunk<kVector, kChunks>(width, [&](int chunk, int e) {
    load(gX + e, rX[chunk]);
    if (gDelta) load(gDelta + e, rDelta[chunk]);
    load(gWeight + e, rWeight[chunk]);
  });
  float squares = 0;
  each_chunk<kVector, kChunks>(width, [&](int chunk, int e) {
    if (gDelta) add_and_store(gX + e, rDelta[chunk], rX[chunk]);
    add_squares(rX[chunk], squares);
  });
  const float scale = norm_scale(squares, width, eps);
  each_chunk<kVector, kChunks>(width, [&](int chunk, int e) { scaled(rX[chunk], scale, rWeight[chunk], gY + e); });
}

// Grid: one block a row. Registers hold x alone, so that many blocks take turns at waiting.
template <int kVector, int kChunks, class T, class W>
__global__ void __launch_bounds__(kThreads) rms_norm_kernel(Rows rows) {
  const auto [gX, gDelta, gWeight, gY, width, eps] = own_row<T, W>(rows);
  float rX[kChunks][kVector], rWeight[kVector];
  float squares = 0;
  each_chunk<kVector, kChunks>(width, [&](int chunk, int e) {
    updated(gX + e, gDelta ? gDelta + e : nullptr, rX[chunk]);
    add_squares(rX[chunk], squares);
  });
  const float scale = norm_scale(squares, width, eps);
  each_chunk<kVector, kChunks>(width, [&](int chunk, int e) {
    load(gWeight + e, rWeight);
    scaled(rX[chunk], scale, rWeight, gY + e);
  });
}

// Grid: one block a row, which is longer than the registers of a block and is read again for the scaling.
template <int kVector, class T, class W>
__global__ void __launch_bounds__(kThreads) rms_norm_long_kernel(Rows rows) {
  const auto [gX, gDelta, gWeight, gY, width, eps] = own_row<T, W>(rows);
  constexpr int kStep = kThreads * kVector;
  float rX[kVector], rWeight[kVector];
  float squares = 0;
  for (int e = threadIdx.x * kVector; e < width; e += kStep) {
    updated(gX + e, gDelta ? gDelta + e : nullptr, rX);
    add_squares(rX, squares);
  }
  const float scale = norm_scale(squares, width, eps);
  for (int e = threadIdx.x * kVector; e < width; e += kStep) {
    load(gX + e, rX);
    load(gWeight + e, rWeight);
    scaled(rX, scale, rWeight, gY + e);
  }
}

template <int kVector, int kChunks, class T, class W>
void launch_chunks(const Rows& rows, unsigned count, cudaStream_t stream) {
  if (count <= kFewRows) rms_norm_few_kernel<kVector, kChunks, T, W><<<count, kThreads, 0, stream>>>(rows);
  else rms_norm_kernel<kVector, kChunks, T, W><<<count, kThreads, 0, stream>>>(rows);
}

template <int kVector, class T, class W>
void launch_vector(const Rows& rows, unsigned count, cudaStream_t stream) {
  const int chunks = (rows.width + kThreads * kVector - 1) / (kThreads * kVector);
  if (chunks == 1) launch_chunks<kVector, 1, T, W>(rows, count, stream);
  else if (chunks == 2) launch_chunks<kVector, 2, T, W>(rows, count, stream);
  else if (chunks <= kMostChunks) launch_chunks<kVector, kMostChunks, T, W>(rows, count, stream);
  else rms_norm_long_kernel<kVector, T, W><<<count, kThreads, 0, stream>>>(rows);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

bool aligned(const void* pointer, int64_t stride_bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % kVectorBytes == 0 && stride_bytes % kVectorBytes == 0;
}

template <class T, class W>
void launch(const Rows& rows, unsigned count, cudaStream_t stream) {
  constexpr int kVector = kVectorBytes / sizeof(T);
  constexpr int64_t kSize = sizeof(T);
  const bool vectors = rows.width % kVector == 0 && aligned(rows.x, rows.x_stride * kSize) &&
                       aligned(rows.delta, rows.delta_stride * kSize) && aligned(rows.y, rows.y_stride * kSize) &&
                       aligned(rows.weight, 0);
  if (vectors) return launch_vector<kVector, T, W>(rows, count, stream);
  launch_vector<1, T, W>(rows, count, stream);
}

template <class T>
void launch_any_weight(const RmsNorm& op, const Rows& rows, cudaStream_t stream) {
  const unsigned count = static_cast<unsigned>(op.x.shape[0]);
  if (op.weight.dtype == DType::bf16) return launch<T, bf16>(rows, count, stream);
  CHECK(op.weight.dtype == DType::f32, name_of(op.weight.dtype));
  launch<T, float>(rows, count, stream);
}

}  // namespace

void rms_norm_cuda(const RmsNorm& op, Stream& stream) {
  const auto [count, width] = op.x.shape;
  CHECK(op.weight.shape[0] == width && width <= INT32_MAX, op.weight.shape[0], width);
  CHECK(op.x.stride[1] == 1 && op.weight.stride[0] == 1, op.x.stride[1], op.weight.stride[0]);
  if (op.delta.data) CHECK(op.delta.shape == op.x.shape && op.delta.dtype == op.x.dtype && op.delta.stride[1] == 1, op.delta.shape[0]);
  if (op.delta_factors.rows.data || op.y8.values.data) return rms_norm_fp8_cuda(op, stream);
  CHECK(op.x.shape == op.y.shape && op.x.dtype == op.y.dtype && op.y.stride[1] == 1, count, width, op.y.shape[0], op.y.shape[1], op.y.stride[1]);
  if (count == 0 || width == 0) return;
  const Rows rows{op.x.data,      op.delta.data,      op.weight.data, op.y.data, op.x.stride[0],
                  op.delta.data ? op.delta.stride[0] : 0, op.y.stride[0], static_cast<int>(width), op.eps};
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (op.x.dtype == DType::bf16) return launch_any_weight<bf16>(op, rows, cuda);
  CHECK(op.x.dtype == DType::f32, name_of(op.x.dtype));
  launch_any_weight<float>(op, rows, cuda);
}

}  // namespace accrete
