// RMSNorm between fp8 products: delta takes its factors on the way in, y is rounded to e4m3 on the way out. Reads 4 E bytes and writes
// 3 E a row; a block keeps its row, as the bf16 numbers that x and y are, in registers from the first load to the last store. The bits are
// those of apply_scales, rms_norm and quantize_fp8 one after another.
#include "kernels/cuda.h"
#include "kernels/gemm/fp8_rows.cuh"
#include "kernels/norm/norm_rows.cuh"
#include "kernels/norm/rms_norm_fp8.h"

namespace accrete {
namespace {

constexpr int kStep = kNormThreads * kBfloats;
constexpr int kMostChunks = 8;        // 16-byte pieces of a row a thread keeps
constexpr int64_t kFewRows = 2 * 132;  // that all run at once whatever registers they take

static_assert(kWidestFp8Norm <= kMostChunks * kStep);

struct Rows {
  bf16* x;
  const bf16* delta;     // or null
  const float* weight;   // [E]
  bf16* y;               // or null
  const float* factors;  // [T] of delta's rows, or null
  const float* columns;  // [E] of delta's columns
  fp8* y8;               // or null
  float* y_scale;        // [T]
  int64_t x_stride, delta_stride, y_stride, y8_stride;  // elements between rows
  int width;                                            // E
  float eps;
};

template <int kChunks, class F>
__device__ void each_chunk(int width, const F& body) {
#pragma unroll
  for (int chunk = 0; chunk < kChunks; ++chunk) {
    const int e = static_cast<int>(threadIdx.x) * kBfloats + chunk * kStep;
    if (e < width) body(chunk, e);
  }
}

// x + delta, as x holds it.
__device__ Bfloats sum(const Bfloats& rX, const float (&rDelta)[kBfloats]) {
  float rSum[kBfloats];
  widen(rX, rSum);
#pragma unroll
  for (int i = 0; i < kBfloats; ++i) rSum[i] += rDelta[i];
  return rounded(rSum);
}

// Grid: one block a row. kFew: rows are few, time is what one row waits for; so everything is asked of memory at once. Else blocks take
// turns at waiting, and need registers for that.
template <int kChunks, bool kFactors, bool kFew>
__global__ void __launch_bounds__(kNormThreads, kFew ? 1 : (kChunks <= 4 ? 4 : 2)) rms_norm_fp8_kernel(const Rows rows) {
  constexpr int kEarly = kFew ? kChunks : 1;
  const int64_t t = blockIdx.x;
  bf16* gX = rows.x + t * rows.x_stride;
  const bf16* gDelta = rows.delta ? rows.delta + t * rows.delta_stride : nullptr;
  Bfloats rX[kChunks], rDelta[kChunks];
  float rColumns[kEarly][kBfloats], rWeight[kEarly][kBfloats];
  const float factor = kFactors ? rows.factors[t] : 1.0f;
  each_chunk<kChunks>(rows.width, [&](int chunk, int e) {
    rX[chunk] = load_once(gX + e);
    if (gDelta) rDelta[chunk] = load_once(gDelta + e);
    if constexpr (kFew && kFactors) load_floats(rows.columns + e, rColumns[chunk]);
    if constexpr (kFew) load_floats(rows.weight + e, rWeight[chunk]);
  });
  float squares = 0;
  each_chunk<kChunks>(rows.width, [&](int chunk, int e) {
    float rFloat[kBfloats];
    if (gDelta) {
      if constexpr (kFactors && !kFew) load_floats(rows.columns + e, rColumns[0]);
      if constexpr (kFactors) scaled(rDelta[chunk], factor, rColumns[kFew ? chunk : 0], rFloat);
      else widen(rDelta[chunk], rFloat);
      rX[chunk] = sum(rX[chunk], rFloat);
      store_bfloats(gX + e, rX[chunk]);
    }
    widen(rX[chunk], rFloat);
#pragma unroll
    for (int i = 0; i < kBfloats; ++i) squares += rFloat[i] * rFloat[i];
  });
  const float scale = norm_scale(squares, rows.width, rows.eps);
  uint32_t largest = 0;
  each_chunk<kChunks>(rows.width, [&](int chunk, int e) {
    float rFloat[kBfloats];
    if constexpr (!kFew) load_floats(rows.weight + e, rWeight[0]);
    widen(rX[chunk], rFloat);
#pragma unroll
    for (int i = 0; i < kBfloats; ++i) rFloat[i] = rWeight[kFew ? chunk : 0][i] * (rFloat[i] * scale);
    rX[chunk] = rounded(rFloat);  // y from here on
    largest = largest_of(rX[chunk], largest);
    if (rows.y) store_bfloats(rows.y + t * rows.y_stride + e, rX[chunk]);
  });
  if (!rows.y8) return;
  const Fp8Scale y_scale(block_largest<kNormThreads>(largest));
  if (threadIdx.x == 0) rows.y_scale[t] = y_scale.scale();
  each_chunk<kChunks>(rows.width, [&](int chunk, int e) { store_rounded(rX[chunk], y_scale, rows.y8 + t * rows.y8_stride + e); });
}

template <int kChunks, bool kFactors>
void launch_chunks(const Rows& rows, int64_t count, cudaStream_t stream) {
  const unsigned blocks = static_cast<unsigned>(count);
  if (count <= kFewRows) rms_norm_fp8_kernel<kChunks, kFactors, true><<<blocks, kNormThreads, 0, stream>>>(rows);
  else rms_norm_fp8_kernel<kChunks, kFactors, false><<<blocks, kNormThreads, 0, stream>>>(rows);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

template <bool kFactors>
void launch(const Rows& rows, int64_t count, cudaStream_t stream) {
  const int chunks = (rows.width + kStep - 1) / kStep;
  if (chunks == 1) return launch_chunks<1, kFactors>(rows, count, stream);
  if (chunks == 2) return launch_chunks<2, kFactors>(rows, count, stream);
  if (chunks <= 4) return launch_chunks<4, kFactors>(rows, count, stream);
  launch_chunks<kMostChunks, kFactors>(rows, count, stream);
}

bool aligned(const void* pointer, int64_t stride_bytes) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride_bytes % 16 == 0; }

void check_fp8(const RmsNorm& op) {
  const auto [count, width] = op.x.shape;
  CHECK(op.x.dtype == DType::bf16 && op.weight.dtype == DType::f32, name_of(op.x.dtype), name_of(op.weight.dtype));
  CHECK(width % 16 == 0 && width <= kWidestFp8Norm, width);
  CHECK(aligned(op.x.data, op.x.stride[0] * 2) && aligned(op.weight.data, 0), op.x.data, op.x.stride[0], op.weight.data);
  if (op.delta.data) CHECK(aligned(op.delta.data, op.delta.stride[0] * 2), op.delta.data, op.delta.stride[0]);
  if (op.y.data) {
    CHECK(op.y.shape == op.x.shape && op.y.dtype == DType::bf16 && op.y.stride[1] == 1, op.y.shape[0], op.y.shape[1], name_of(op.y.dtype));
    CHECK(aligned(op.y.data, op.y.stride[0] * 2), op.y.data, op.y.stride[0]);
  }
  const Factors& f = op.delta_factors;
  if (f.rows.data) {
    CHECK(op.delta.data && f.rows.shape[0] == count && f.columns.shape[0] == width, f.rows.shape[0], count, f.columns.shape[0], width);
    CHECK(f.rows.stride[0] == 1 && f.columns.stride[0] == 1 && aligned(f.columns.data, 0), f.columns.data);
  }
  const auto& [y8, y_scale] = op.y8;
  CHECK(y8.data || op.y.data);
  if (!y8.data) return;
  CHECK(y8.shape == op.x.shape && y_scale.shape[0] == count, y8.shape[0], y8.shape[1], y_scale.shape[0], count, width);
  CHECK(y8.stride[1] == 1 && y_scale.stride[0] == 1 && aligned(y8.data, y8.stride[0]), y8.data, y8.stride[0]);
}

}  // namespace

void rms_norm_fp8_cuda(const RmsNorm& op, Stream& stream) {
  check_fp8(op);
  const auto [count, width] = op.x.shape;
  if (count == 0 || width == 0) return;
  const auto& [y8, y_scale] = op.y8;
  const Factors& f = op.delta_factors;
  const Rows rows{.x = static_cast<bf16*>(op.x.data), .delta = static_cast<const bf16*>(op.delta.data), .weight = static_cast<const float*>(op.weight.data),
                  .y = static_cast<bf16*>(op.y.data), .factors = f.rows.data, .columns = f.columns.data, .y8 = y8.data, .y_scale = y_scale.data,
                  .x_stride = op.x.stride[0], .delta_stride = op.delta.stride[0], .y_stride = op.y.stride[0], .y8_stride = y8.stride[0],
                  .width = static_cast<int>(width), .eps = op.eps};
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (f.rows.data) launch<true>(rows, count, cuda);
  else launch<false>(rows, count, cuda);
}

}  // namespace accrete
