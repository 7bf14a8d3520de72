// One-shot all-reduce, plain or with the residual addition and RMSNorm that follow it. Latency-bound: a launch, a copy into staging memory,
// one flag each way, one read of every peer's memory.
//
// Block b of a rank works on the same elements as block b of every other rank, so only counterparts wait for each other. Why two halves of
// staging memory are enough: a block that writes operation n into its half follows, in its rank's stream, a whole launch of operation
// n - 1, and that saw a flag n - 1 of every peer. A peer sets flag n - 1 in a launch that follows all of its own launch of n - 2, the last
// one to read that half. This needs every rank's launches to follow each other completely: one stream, no programmatic dependent launch.
#include <algorithm>

#include "kernels/all_reduce/one_shot.h"
#include "kernels/cuda.h"

namespace accrete {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 512;     // of a block that sums
constexpr int kRowThreads = 1024;  // at most, of a block that has a row: one piece a thread up to 8192 bf16, all under way at once
constexpr int kPieceBytes = 16;
constexpr uint32_t kLooks = 256;  // at a flag between two looks at the clock and the host: some 0.1 ms
constexpr unsigned kNapNs = 100;  // between looks after that many

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

// Release at system scope: whoever acquires the value, on any GPU, sees all that this thread wrote before, and all that its block wrote
// before the barrier that this thread has passed (the order is cumulative).
__device__ void release(uint64_t* flag, uint64_t value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(flag), "l"(value) : "memory");
}
// Acquire at system scope: pairs with release. The loads that follow, here or in the block past its next barrier, see what was written
// before the release; old lines of the first-level cache do not survive it.
__device__ uint64_t acquire(const uint64_t* flag) {
  uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(flag) : "memory");
  return value;
}
__device__ uint64_t clock_ns() {
  uint64_t value;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(value));
  return value;
}

struct Operation {
  uint64_t number;  // from 1
  uint64_t bytes;
  OneShotKind kind;
};

__device__ size_t half_of(const OneShotRef& ranks, uint64_t number) { return number % 2 * ranks.capacity; }

// 0 when `peer`'s block has staged the operation, else kOneShotLeft + the rank to blame.
__device__ uint64_t wait_for(const OneShotRef& ranks, int peer, uint64_t number) {
  const uint64_t* flag = ranks.arrived[ranks.rank] + blockIdx.x * kOneShotRanks + peer;
  uint64_t begin = 0;
  for (uint32_t look = 1;; ++look) {
    const uint64_t value = acquire(flag);
    if (value >= kOneShotLeft) return value;
    if (value >= number) return 0;  // or the next one's: a peer may be that far ahead, with the other half of its memory
    if (begin != 0) __nanosleep(kNapNs);
    if (look % kLooks != 0) continue;
    // volatile: the host may write it at any time; it orders nothing.
    if (*static_cast<const volatile uint32_t*>(&ranks.report->stop)) return kOneShotLeft + ranks.rank;
    const uint64_t now = clock_ns();
    if (begin == 0) begin = now;
    if (now - begin > ranks.patience_ns) return kOneShotLeft + peer;
  }
}

// The first that finds the group broken says so, to later launches and to the host.
__device__ void break_group(const OneShotRef& ranks, const Operation& operation, uint64_t blame) {
  // Relaxed: it only picks who reports. Later launches see it because the stream orders them.
  const auto before = atomicCAS(reinterpret_cast<unsigned long long*>(&ranks.state->broken), 0ull, static_cast<unsigned long long>(blame));
  if (before != 0) return;
  OneShotReport& report = *ranks.report;
  report.operation = operation.number;
  report.bytes = operation.bytes;
  report.blamed = static_cast<int32_t>(blame - kOneShotLeft);
  report.kind = operation.kind;
  // Release at system scope: the host, which acquires it, sees the fields above.
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(&report.broken), "r"(1u) : "memory");
}

// This block's counterparts need not wait for it any longer.
__device__ void leave(const OneShotRef& ranks) {
  const int peer = static_cast<int>(threadIdx.x);
  if (peer >= ranks.size || peer == ranks.rank) return;
  const uint64_t blame = *static_cast<const volatile uint64_t*>(&ranks.state->broken);  // set once, before any block leaves
  release(ranks.arrived[peer] + blockIdx.x * kOneShotRanks + ranks.rank, blame);
}

// Tells the counterparts that this block has staged its part, and waits until they have. False when the group is broken.
__device__ bool meet(const OneShotRef& ranks, const Operation& operation) {
  __syncthreads();  // the block's part is written before the flags are: see release
  const int peer = static_cast<int>(threadIdx.x);
  uint64_t blame = 0;
  if (peer < ranks.size && peer != ranks.rank) {
    release(ranks.arrived[peer] + blockIdx.x * kOneShotRanks + ranks.rank, operation.number);
    blame = wait_for(ranks, peer, operation.number);
    if (blame != 0) break_group(ranks, operation, blame);
  }
  if (!__syncthreads_or(blame != 0)) return true;  // the barrier passes on what wait_for acquired
  leave(ranks);
  return false;
}

// Whether an earlier launch found the group broken; the same for the whole block, though another block may be finding it just now.
__device__ bool broken_before(const OneShotRef& ranks) {
  if (!__syncthreads_or(*static_cast<const volatile uint64_t*>(&ranks.state->broken) != 0)) return false;
  leave(ranks);
  return true;
}

// The last block counts the operation.
__device__ void finish(const OneShotRef& ranks, uint64_t number) {
  if (threadIdx.x != 0) return;
  // Relaxed: it only counts. Every thread has read `operations` before its block's barriers in meet, so before the last block writes it;
  // the next launch reads both fields, ordered by the stream.
  if (atomicAdd(&ranks.state->finished, 1u) + 1 < gridDim.x) return;
  ranks.state->finished = 0;
  ranks.state->operations = number;
}

// The sum over ranks, in rank order, of the staged piece at element `at`.
template <class T>
__device__ void sum_over_ranks(const OneShotRef& ranks, size_t half, int64_t at, float (&rSum)[kPiece<T>]) {
  Piece<T> rPart[kOneShotRanks];
#pragma unroll
  for (int r = 0; r < kOneShotRanks; ++r) {  // all loads are under way before the first sum
    if (r < ranks.size) rPart[r] = *reinterpret_cast<const Piece<T>*>(ranks.staged[r] + half + at * sizeof(T));
  }
#pragma unroll
  for (int i = 0; i < kPiece<T>; ++i) rSum[i] = static_cast<float>(rPart[0].value[i]);
#pragma unroll
  for (int r = 1; r < kOneShotRanks; ++r) {
    if (r >= ranks.size) continue;
#pragma unroll
    for (int i = 0; i < kPiece<T>; ++i) rSum[i] += static_cast<float>(rPart[r].value[i]);
  }
}

template <bool kAligned, class T>
__device__ void stage(const OneShotRef& ranks, size_t half, int64_t at, const T* from, int64_t left) {
  float rPart[kPiece<T>];
  load<kAligned>(from, left, rPart);
  store<true>(reinterpret_cast<T*>(ranks.staged[ranks.rank] + half) + at, kPiece<T>, rPart);
}

// Grid: a block for every kThreads pieces, at most kOneShotBlocks, which then take turns.
template <bool kAligned, class T>
__global__ void __launch_bounds__(kThreads, 2)
one_shot_sum_kernel(T* gValues, int64_t count, const __grid_constant__ OneShotRef ranks) {
  if (broken_before(ranks)) return;
  const Operation operation{ranks.state->operations + 1, count * sizeof(T), OneShotKind::sum};
  const size_t half = half_of(ranks, operation.number);
  const int64_t first = (static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x) * kPiece<T>;
  const int64_t step = static_cast<int64_t>(gridDim.x) * kThreads * kPiece<T>;
  for (int64_t i = first; i < count; i += step) stage<kAligned>(ranks, half, i, gValues + i, count - i);
  if (!meet(ranks, operation)) return;
  for (int64_t i = first; i < count; i += step) {
    float rSum[kPiece<T>];
    sum_over_ranks<T>(ranks, half, i, rSum);
    store<kAligned>(gValues + i, count - i, rSum);
  }
  finish(ranks, operation.number);
}

// Row t of x plus the sum, and of y. kOnce: a thread has one piece of the row and keeps it between the two; else x is read again.
template <bool kOnce, bool kAligned, class T, class W>
__device__ void norm_row(const Rows& rows, const OneShotRef& ranks, size_t half, int64_t t) {
  const int first = static_cast<int>(threadIdx.x) * kPiece<T>, step = static_cast<int>(blockDim.x) * kPiece<T>;
  T* gX = static_cast<T*>(rows.x) + t * rows.x_stride;
  T* gY = static_cast<T*>(rows.y) + t * rows.y_stride;
  const W* gWeight = static_cast<const W*>(rows.weight);
  float rX[kPiece<T>];
  float squares = 0;
  for (int e = first; e < rows.width; e += step) {
    float rSum[kPiece<T>];
    sum_over_ranks<T>(ranks, half, t * rows.pitch + e, rSum);
    load<kAligned>(gX + e, rows.width - e, rX);
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

// Grid: a block a row, at most kOneShotBlocks, which then take turns. Threads: one a piece of a row, in whole warps.
template <bool kOnce, bool kAligned, class T, class W>
__global__ void __launch_bounds__(kRowThreads)
one_shot_norm_kernel(const __grid_constant__ Rows rows, const __grid_constant__ OneShotRef ranks) {
  if (broken_before(ranks)) return;
  const Operation operation{ranks.state->operations + 1, rows.count * rows.pitch * sizeof(T), OneShotKind::norm};
  const size_t half = half_of(ranks, operation.number);
  const int first = static_cast<int>(threadIdx.x) * kPiece<T>, step = static_cast<int>(blockDim.x) * kPiece<T>;
  for (int64_t t = blockIdx.x; t < rows.count; t += gridDim.x) {
    const T* gDelta = static_cast<const T*>(rows.delta) + t * rows.delta_stride;
    for (int e = first; e < rows.width; e += step) stage<kAligned>(ranks, half, t * rows.pitch + e, gDelta + e, rows.width - e);
  }
  if (!meet(ranks, operation)) return;
  for (int64_t t = blockIdx.x; t < rows.count; t += gridDim.x) norm_row<kOnce, kAligned, T, W>(rows, ranks, half, t);
  finish(ranks, operation.number);
}

bool aligned(const void* pointer, int64_t stride_bytes = 0) {
  return reinterpret_cast<uintptr_t>(pointer) % kPieceBytes == 0 && stride_bytes % kPieceBytes == 0;
}

int64_t pieces_of(int64_t elements, int64_t piece) { return (elements + piece - 1) / piece; }

template <class T>
void launch_sum(T* values, int64_t count, const OneShotRef& ranks, cudaStream_t stream) {
  const int64_t most = static_cast<int64_t>(ranks.capacity / sizeof(T));
  for (int64_t begin = 0; begin < count; begin += most) {
    const int64_t part = std::min(most, count - begin);
    const auto blocks = static_cast<unsigned>(std::min<int64_t>(kOneShotBlocks, pieces_of(part, kThreads * kPiece<T>)));
    const auto kernel = aligned(values) ? one_shot_sum_kernel<true, T> : one_shot_sum_kernel<false, T>;
    kernel<<<blocks, kThreads, 0, stream>>>(values + begin, part, ranks);
    ACCRETE_CUDA_CHECK(cudaGetLastError());
  }
}

template <class T, class W>
void launch_norm(Rows rows, const OneShotRef& ranks, cudaStream_t stream) {
  constexpr int64_t kSize = sizeof(T);
  const bool pieces = aligned(rows.x, rows.x_stride * kSize) && aligned(rows.delta, rows.delta_stride * kSize) &&
                      aligned(rows.y, rows.y_stride * kSize) && aligned(rows.weight);
  const int64_t row_pieces = pieces_of(rows.width, kPiece<T>);
  auto kernel = one_shot_norm_kernel<false, false, T, W>;
  if (pieces) kernel = row_pieces <= kRowThreads ? one_shot_norm_kernel<true, true, T, W> : one_shot_norm_kernel<false, true, T, W>;
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
    kernel<<<static_cast<unsigned>(std::min(part.count, kOneShotBlocks)), threads, 0, stream>>>(part, ranks);
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
  CHECK(ranks.capacity >= kOneShotAlignment && ranks.capacity % kOneShotAlignment == 0, ranks.capacity);
}

template <class Kernel>
void load_kernel(Kernel kernel) {
  cudaFuncAttributes attributes;
  ACCRETE_CUDA_CHECK(cudaFuncGetAttributes(&attributes, kernel));
}
template <class T, class W>
void load_norm_kernels() {
  load_kernel(one_shot_norm_kernel<true, true, T, W>);
  load_kernel(one_shot_norm_kernel<false, true, T, W>);
  load_kernel(one_shot_norm_kernel<false, false, T, W>);
}
template <class T>
void load_kernels() {
  load_kernel(one_shot_sum_kernel<true, T>);
  load_kernel(one_shot_sum_kernel<false, T>);
  load_norm_kernels<T, bf16>();
  load_norm_kernels<T, float>();
}

}  // namespace

void one_shot_load_cuda() {
  load_kernels<float>();
  load_kernels<bf16>();
}

void one_shot_sum_cuda(const AnyView<1>& values, const OneShotRef& ranks, Stream& stream) {
  check_ref(ranks);
  CHECK(values.stride[0] == 1 || values.shape[0] <= 1, values.stride[0]);
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (values.dtype == DType::bf16) return launch_sum(static_cast<bf16*>(values.data), values.shape[0], ranks, cuda);
  CHECK(values.dtype == DType::f32, name_of(values.dtype));
  launch_sum(static_cast<float*>(values.data), values.shape[0], ranks, cuda);
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
