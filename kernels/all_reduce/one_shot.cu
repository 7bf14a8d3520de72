// One-shot all-reduce, plain or with the residual addition and RMSNorm that follow it. Latency-bound: a launch, a copy into staging memory,
// one flag each way, one read of every peer's memory.
#include <algorithm>

#include "kernels/all_reduce/one_shot_meet.cuh"
#include "kernels/cuda.h"

namespace accrete {
namespace {

using namespace one_shot;

constexpr int kWarp = 32;
constexpr int kThreads = 512;     // of a block that sums
constexpr int kRowThreads = 1024;  // at most, of a block that has a row: one piece a thread up to 8192 bf16, all under way at once
constexpr int kPieceBytes = 16;

template <class T>
constexpr int kPiece = kPieceBytes / static_cast<int>(sizeof(T));

template <class T>
struct alignas(kPieceBytes) Piece {
  T value[kPiece<T>];
};

struct Rows {
  void* x;
  const void* delta;
  const void* weight;
  void* y;
  int64_t x_stride, delta_stride, y_stride;  // elements between rows
  int64_t pitch;                             // elements between staged rows: whole pieces
  int width;                                 // E
  int count;                                 // T
  float eps;
};

struct Scales {
  const float* rows;     // null: none
  const float* columns;
  uint32_t width;        // E
};

// kCount elements as floats, zeros beyond `left`; in accesses of at most 16 bytes where the memory is aligned to them.
template <bool kAligned, int kCount, class T>
__device__ void load(const T* from, int64_t left, float (&to)[kCount]) {
  constexpr int kBytes = kCount * sizeof(T) < kPieceBytes ? kCount * sizeof(T) : kPieceBytes;
  constexpr int kEach = kBytes / sizeof(T);
  struct alignas(kBytes) Part { T value[kEach]; };
  if (kAligned && left >= kCount) {
#pragma unroll
    for (int i = 0; i < kCount; i += kEach) {
      const Part part = *reinterpret_cast<const Part*>(from + i);
#pragma unroll
      for (int j = 0; j < kEach; ++j) to[i + j] = static_cast<float>(part.value[j]);
    }
    return;
  }
#pragma unroll
  for (int i = 0; i < kCount; ++i) to[i] = i < left ? static_cast<float>(from[i]) : 0.0f;
}

// Stores the first `left` of a piece as T and leaves in `from` what was stored, rounded.
template <bool kAligned, class T>
__device__ void store(T* to, int64_t left, float (&from)[kPiece<T>]) {
  Piece<T> piece;
#pragma unroll
  for (int i = 0; i < kPiece<T>; ++i) {
    piece.value[i] = static_cast<T>(from[i]);
    from[i] = static_cast<float>(piece.value[i]);
  }
  if (kAligned && left >= kPiece<T>) {
    *reinterpret_cast<Piece<T>*>(to) = piece;
    return;
  }
#pragma unroll
  for (int i = 0; i < kPiece<T>; ++i) {
    if (i < left) to[i] = piece.value[i];
  }
}

// The sum over the block, in every thread, in an order that is the same on every rank.
__device__ float block_sum(float value) {
  __shared__ float sWarp[kRowThreads / kWarp];
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) value += __shfl_xor_sync(0xffffffffu, value, offset);
  __syncthreads();  // the row before may still be read
  if (threadIdx.x % kWarp == 0) sWarp[threadIdx.x / kWarp] = value;
  __syncthreads();
  float sum = 0;
  for (unsigned warp = 0; warp < blockDim.x / kWarp; ++warp) sum += sWarp[warp];
  return sum;
}


// Pieces of all ranks at one place, as they came: unpacked before their turn they would take twice the registers. kRanks: 2, 4 or 8, what the
// group's size rounds up to.
template <int kRanks, class T>
struct Parts {
  uint4 of[kRanks];

  __device__ void read(const OneShotRef& ranks, size_t half, int64_t at) {
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r < ranks.size) of[r] = *reinterpret_cast<const uint4*>(ranks.staged[r] + half + at * sizeof(T));
    }
  }
  // In rank order.
  __device__ void sum(const OneShotRef& ranks, float (&rSum)[kPiece<T>]) const {
#pragma unroll
    for (int r = 0; r < kRanks; ++r) {
      if (r >= ranks.size) continue;
      const Piece<T> piece = *reinterpret_cast<const Piece<T>*>(&of[r]);
#pragma unroll
      for (int i = 0; i < kPiece<T>; ++i) rSum[i] = r == 0 ? static_cast<float>(piece.value[i]) : rSum[i] + static_cast<float>(piece.value[i]);
    }
  }
};

// The first `left` elements of a piece, zeros behind them.
template <bool kAligned, class T>
__device__ uint4 piece_at(const T* from, int64_t left) {
  if (kAligned && left >= kPiece<T>) return *reinterpret_cast<const uint4*>(from);
  Piece<T> piece;
#pragma unroll
  for (int i = 0; i < kPiece<T>; ++i) piece.value[i] = i < left ? from[i] : static_cast<T>(0.0f);
  return *reinterpret_cast<const uint4*>(&piece);
}

// What the piece at element `at` of [T, E] stands for.
template <class T>
__device__ uint4 scaled(uint4 bits, const Scales& scales, int64_t at) {
  const auto row = static_cast<uint32_t>(at) / scales.width, column = static_cast<uint32_t>(at) - row * scales.width;
  Piece<T> piece = *reinterpret_cast<const Piece<T>*>(&bits);
  float rColumns[kPiece<T>];
  load<true>(scales.columns + column, kPiece<T>, rColumns);
#pragma unroll
  for (int i = 0; i < kPiece<T>; ++i) piece.value[i] = static_cast<T>(static_cast<float>(piece.value[i]) * scales.rows[row] * rColumns[i]);
  return *reinterpret_cast<const uint4*>(&piece);
}

template <class T>
__device__ uint4* staged_at(const OneShotRef& ranks, size_t half, int64_t at) {
  return reinterpret_cast<uint4*>(ranks.staged[ranks.rank] + half + at * sizeof(T));
}

// Grid: a block for every kThreads pieces, at most OneShotRef::blocks, which then take turns. A thread's reads of other GPUs, a microsecond
// or two away, are under way together before the first sum: kAtOnce places of kRanks pieces.
template <int kRanks, bool kAligned, class T>
__global__ void __launch_bounds__(kThreads, 2)
one_shot_sum_kernel(T* gValues, int64_t count, const Scales scales, const __grid_constant__ OneShotRef ranks) {
  constexpr int kAtOnce = kOneShotRanks / kRanks, kStaged = 4;
  if (broken_before(ranks)) return;
  const Operation operation{ranks.state->operations + 1, count * sizeof(T), OneShotKind::sum};
  const size_t half = half_of(ranks, operation.number);
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kPiece<T>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kPiece<T>;
  for (int64_t i = first; i < count; i += kStaged * step) {
    uint4 rPieces[kStaged];
#pragma unroll
    for (int a = 0; a < kStaged; ++a) {
      if (i + a * step < count) rPieces[a] = piece_at<kAligned>(gValues + i + a * step, count - i - a * step);
    }
#pragma unroll
    for (int a = 0; a < kStaged; ++a) {
      const int64_t at = i + a * step;
      if (at >= count) break;
      *staged_at<T>(ranks, half, at) = scales.rows ? scaled<T>(rPieces[a], scales, at) : rPieces[a];
    }
  }
  if (!meet(ranks, operation)) return;
  for (int64_t i = first; i < count; i += kAtOnce * step) {
    Parts<kRanks, T> rParts[kAtOnce];
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      if (i + a * step < count) rParts[a].read(ranks, half, i + a * step);
    }
#pragma unroll
    for (int a = 0; a < kAtOnce; ++a) {
      const int64_t at = i + a * step;
      float rSum[kPiece<T>];
      if (at >= count) break;
      rParts[a].sum(ranks, rSum);
      store<kAligned>(gValues + at, count - at, rSum);
    }
  }
  finish(ranks, operation.number);
}

// Row t of x plus the sum, and of y. kOnce: a thread has one piece of the row and keeps it between the two; else x is read again.
template <int kRanks, bool kOnce, bool kAligned, class T, class W>
__device__ void norm_row(const Rows& rows, const OneShotRef& ranks, size_t half, int64_t t) {
  const int first = static_cast<int>(threadIdx.x) * kPiece<T>, step = static_cast<int>(blockDim.x) * kPiece<T>;
  T* gX = static_cast<T*>(rows.x) + t * rows.x_stride;
  T* gY = static_cast<T*>(rows.y) + t * rows.y_stride;
  const W* gWeight = static_cast<const W*>(rows.weight);
  float rX[kPiece<T>];
  float squares = 0;
  for (int e = first; e < rows.width; e += step) {
    Parts<kRanks, T> rParts;
    float rSum[kPiece<T>];
    rParts.read(ranks, half, t * rows.pitch + e);
    load<kAligned>(gX + e, rows.width - e, rX);
    rParts.sum(ranks, rSum);
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) rX[i] += rSum[i];
    store<kAligned>(gX + e, rows.width - e, rX);
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) squares += e + i < rows.width ? rX[i] * rX[i] : 0.0f;
    if (kOnce) break;
  }
  const float scale = 1.0f / sqrtf(block_sum(squares) / rows.width + rows.eps);
  for (int e = first; e < rows.width; e += step) {
    float rY[kPiece<T>];
    if (!kOnce) load<kAligned>(gX + e, rows.width - e, rX);
    load<kAligned>(gWeight + e, rows.width - e, rY);
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) rY[i] *= rX[i] * scale;
    store<kAligned>(gY + e, rows.width - e, rY);
    if (kOnce) break;
  }
}

// Grid: a block a row, at most OneShotRef::blocks, which then take turns. Threads: one a piece of a row, in whole warps.
template <int kRanks, bool kOnce, bool kAligned, class T, class W>
__global__ void __launch_bounds__(kRowThreads)
one_shot_norm_kernel(const __grid_constant__ Rows rows, const __grid_constant__ OneShotRef ranks) {
  if (broken_before(ranks)) return;
  const Operation operation{ranks.state->operations + 1, rows.count * rows.pitch * sizeof(T), OneShotKind::norm};
  const size_t half = half_of(ranks, operation.number);
  const int first = static_cast<int>(threadIdx.x) * kPiece<T>, step = static_cast<int>(blockDim.x) * kPiece<T>;
  for (int64_t t = blockIdx.x; t < rows.count; t += gridDim.x) {
    const T* gDelta = static_cast<const T*>(rows.delta) + t * rows.delta_stride;
    for (int e = first; e < rows.width; e += step) *staged_at<T>(ranks, half, t * rows.pitch + e) = piece_at<kAligned>(gDelta + e, rows.width - e);
  }
  if (!meet(ranks, operation)) return;
  for (int64_t t = blockIdx.x; t < rows.count; t += gridDim.x) norm_row<kRanks, kOnce, kAligned, T, W>(rows, ranks, half, t);
  finish(ranks, operation.number);
}

bool aligned(const void* pointer, int64_t stride_bytes = 0) {
  return reinterpret_cast<uintptr_t>(pointer) % kPieceBytes == 0 && stride_bytes % kPieceBytes == 0;
}

int64_t pieces_of(int64_t elements, int64_t piece) { return (elements + piece - 1) / piece; }

// f<2>(), f<4>() or f<8>(): whichever holds the group.
template <class F>
auto for_ranks(int size, F f) {
  return size <= 2 ? f.template operator()<2>() : size <= 4 ? f.template operator()<4>() : f.template operator()<8>();
}

// With factors a launch takes whole rows.
template <class T>
void launch_sum(const OneShotSum& op, const OneShotRef& ranks, cudaStream_t stream) {
  T* values = static_cast<T*>(op.values.data);
  Scales scales{op.factors.rows.data, op.factors.columns.data, static_cast<uint32_t>(op.factors.columns.shape[0])};
  const int64_t unit = scales.rows ? scales.width : 1, most = static_cast<int64_t>(ranks.capacity / sizeof(T)) / unit * unit;
  CHECK(most > 0, unit, ranks.capacity);
  const auto kernel = for_ranks(ranks.size, [&]<int kRanks> {
    return aligned(values) ? one_shot_sum_kernel<kRanks, true, T> : one_shot_sum_kernel<kRanks, false, T>;
  });
  for (int64_t begin = 0; begin < op.values.shape[0]; begin += most) {
    const int64_t part = std::min(most, op.values.shape[0] - begin);
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(ranks.blocks, pieces_of(part, kThreads * kPiece<T>)));
    kernel<<<blocks, kThreads, 0, stream>>>(values + begin, part, scales, ranks);
    ACCRETE_CUDA_CHECK(cudaGetLastError());
    if (scales.rows) scales.rows += most / unit;
  }
}

template <class T, class W>
void launch_norm(Rows rows, const OneShotRef& ranks, cudaStream_t stream) {
  constexpr int64_t kSize = sizeof(T);
  const bool pieces = aligned(rows.x, rows.x_stride * kSize) && aligned(rows.delta, rows.delta_stride * kSize) &&
                      aligned(rows.y, rows.y_stride * kSize) && aligned(rows.weight);
  const int64_t row_pieces = pieces_of(rows.width, kPiece<T>);
  const auto kernel = for_ranks(ranks.size, [&]<int kRanks> {
    if (!pieces) return one_shot_norm_kernel<kRanks, false, false, T, W>;
    return row_pieces <= kRowThreads ? one_shot_norm_kernel<kRanks, true, true, T, W> : one_shot_norm_kernel<kRanks, false, true, T, W>;
  });
  rows.pitch = row_pieces * kPiece<T>;
  const auto threads = static_cast<unsigned>(std::min<int64_t>(kRowThreads, pieces_of(row_pieces, kWarp) * kWarp));
  const int64_t most = static_cast<int64_t>(ranks.capacity) / (rows.pitch * kSize), count = rows.count;
  CHECK(most > 0, rows.width, ranks.capacity);
  for (int64_t begin = 0; begin < count; begin += most) {
    Rows part = rows;
    part.count = static_cast<int>(std::min(most, count - begin));
    part.x = static_cast<T*>(rows.x) + begin * rows.x_stride;
    part.delta = static_cast<const T*>(rows.delta) + begin * rows.delta_stride;
    part.y = static_cast<T*>(rows.y) + begin * rows.y_stride;
    kernel<<<static_cast<unsigned>(std::min(part.count, ranks.blocks)), threads, 0, stream>>>(part, ranks);
    ACCRETE_CUDA_CHECK(cudaGetLastError());
  }
}

template <class T>
void launch_any_weight(DType weight, const Rows& rows, const OneShotRef& ranks, cudaStream_t stream) {
  if (weight == DType::bf16) return launch_norm<T, bf16>(rows, ranks, stream);
  CHECK(weight == DType::f32, name_of(weight));
  launch_norm<T, float>(rows, ranks, stream);
}

void check_ref(const OneShotRef& ranks) {
  CHECK(ranks.size >= 1 && ranks.size <= kOneShotRanks && ranks.rank >= 0 && ranks.rank < ranks.size, ranks.rank, ranks.size);
  CHECK(ranks.blocks >= 1 && ranks.blocks <= kOneShotBlocks, ranks.blocks);
  CHECK(ranks.capacity >= kOneShotAlignment && ranks.capacity % kOneShotAlignment == 0, ranks.capacity);
}

template <class Kernel>
void load_kernel(Kernel kernel) {
  cudaFuncAttributes attributes;
  ACCRETE_CUDA_CHECK(cudaFuncGetAttributes(&attributes, kernel));
}
template <int kRanks, class T, class W>
void load_norm_kernels() {
  load_kernel(one_shot_norm_kernel<kRanks, true, true, T, W>);
  load_kernel(one_shot_norm_kernel<kRanks, false, true, T, W>);
  load_kernel(one_shot_norm_kernel<kRanks, false, false, T, W>);
}
template <int kRanks, class T>
void load_kernels() {
  load_kernel(one_shot_sum_kernel<kRanks, true, T>);
  load_kernel(one_shot_sum_kernel<kRanks, false, T>);
  load_norm_kernels<kRanks, T, bf16>();
  load_norm_kernels<kRanks, T, float>();
}

}  // namespace

void one_shot_load_cuda(int ranks) {
  for_ranks(ranks, []<int kRanks> {
    load_kernels<kRanks, float>();
    load_kernels<kRanks, bf16>();
  });
}

void one_shot_sum_cuda(const OneShotSum& op, const OneShotRef& ranks, Stream& stream) {
  check_ref(ranks);
  CHECK(op.values.stride[0] == 1 || op.values.shape[0] <= 1, op.values.stride[0]);
  if (op.factors.rows.data) {
    const int64_t rows = op.factors.rows.shape[0], columns = op.factors.columns.shape[0];
    CHECK(rows * columns == op.values.shape[0] && op.values.shape[0] <= UINT32_MAX, rows, columns, op.values.shape[0]);
    CHECK(op.factors.rows.stride[0] == 1 && op.factors.columns.stride[0] == 1, op.factors.rows.stride[0], op.factors.columns.stride[0]);
    CHECK(columns * static_cast<int64_t>(size_of(op.values.dtype)) % kPieceBytes == 0 && aligned(op.factors.columns.data), columns, op.factors.columns.data);
  }
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (op.values.dtype == DType::bf16) return launch_sum<bf16>(op, ranks, cuda);
  CHECK(op.values.dtype == DType::f32, name_of(op.values.dtype));
  launch_sum<float>(op, ranks, cuda);
}

void one_shot_norm_cuda(const RmsNorm& op, const OneShotRef& ranks, Stream& stream) {
  check_ref(ranks);
  CHECK(op.x.shape == op.y.shape && op.x.dtype == op.y.dtype, op.x.shape[0], op.x.shape[1], op.y.shape[0], op.y.shape[1]);
  CHECK(op.weight.shape[0] == op.x.shape[1] && op.x.shape[0] <= INT32_MAX && op.x.shape[1] <= INT32_MAX / 2, op.x.shape[0], op.x.shape[1]);
  CHECK(op.x.stride[1] == 1 && op.y.stride[1] == 1 && op.weight.stride[0] == 1, op.x.stride[1], op.y.stride[1]);
  if (op.x.shape[0] == 0 || op.x.shape[1] == 0) return;
  CHECK(op.delta.data != nullptr && op.delta.shape == op.x.shape && op.delta.dtype == op.x.dtype, op.delta.shape[0], op.x.shape[0]);
  CHECK(op.delta.stride[1] == 1, op.delta.stride[1]);
  Rows rows{.x = op.x.data, .delta = op.delta.data, .weight = op.weight.data, .y = op.y.data};
  rows.x_stride = op.x.stride[0];
  rows.delta_stride = op.delta.stride[0];
  rows.y_stride = op.y.stride[0];
  rows.width = static_cast<int>(op.x.shape[1]);
  rows.count = static_cast<int>(op.x.shape[0]);
  rows.eps = op.eps;
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (op.x.dtype == DType::bf16) return launch_any_weight<bf16>(op.weight.dtype, rows, ranks, cuda);
  CHECK(op.x.dtype == DType::f32, name_of(op.x.dtype));
  launch_any_weight<float>(op.weight.dtype, rows, ranks, cuda);
}

}  // namespace accrete
