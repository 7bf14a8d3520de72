// Quantisation of rows to e4m3, and the scaling after a product. Both are memory-bound and read everything once: a block takes a
// row and keeps it in registers between the maximum and the rounding.
#include "kernels/cuda.h"
#include "kernels/gemm/fp8_rows.cuh"
#include "kernels/gemm/quantize_fp8.h"

namespace accrete {
namespace {

constexpr int kQuantizeThreads = 512;
constexpr int kMostChunks = 8;  // 16-byte pieces of a row a thread keeps: rows to 32768; longer ones are read again
constexpr int kScaleThreads = 256;
constexpr int kVectorBytes = 16;

struct Rows {
  const bf16* x;
  fp8* x8;
  float* scale;
  int64_t x_stride, x8_stride;  // elements between rows
  int64_t width;                // K
};

// Grid: one block a row. kChunks 0: the row is longer than the registers of a block, and is read again for the rounding.
template <int kChunks>
__global__ void __launch_bounds__(kQuantizeThreads) quantize_kernel(Rows rows) {
  constexpr int kStep = kQuantizeThreads * kBfloats;
  const bf16* gX = rows.x + blockIdx.x * rows.x_stride;
  fp8* gX8 = rows.x8 + blockIdx.x * rows.x8_stride;
  const int64_t first = threadIdx.x * kBfloats;
  Bfloats rX[kChunks > 0 ? kChunks : 1];
  uint32_t largest = 0;
  const auto take = [&](int64_t k, Bfloats& rChunk) {
    rChunk = load_bfloats(gX + k);
    largest = largest_of(rChunk, largest);
  };
  if constexpr (kChunks > 0) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      if (first + chunk * kStep < rows.width) take(first + chunk * kStep, rX[chunk]);
    }
  } else {
    for (int64_t k = first; k < rows.width; k += kStep) take(k, rX[0]);
  }
  const Fp8Scale scale(block_largest<kQuantizeThreads>(largest));
  if (threadIdx.x == 0) rows.scale[blockIdx.x] = scale.scale();
  if constexpr (kChunks > 0) {
#pragma unroll
    for (int chunk = 0; chunk < kChunks; ++chunk) {
      const int64_t k = first + chunk * kStep;
      if (k < rows.width) store_rounded(rX[chunk], scale, gX8 + k);
    }
  } else {
    for (int64_t k = first; k < rows.width; k += kStep) store_rounded(load_bfloats(gX + k), scale, gX8 + k);
  }
}

// The squared error of a row for each scale_step, in units of the squared first scale, over the block and in every thread.
__device__ void sum_errors(float (&rErrors)[kScaleSteps]) {
  constexpr int kWarps = kQuantizeThreads / 32;
  __shared__ float sErrors[kWarps][kScaleSteps];
#pragma unroll
  for (int i = 0; i < kScaleSteps; ++i) {
#pragma unroll
    for (int lane = 16; lane > 0; lane /= 2) rErrors[i] += __shfl_xor_sync(0xffffffffu, rErrors[i], lane);
    if (threadIdx.x % 32 == 0) sErrors[threadIdx.x / 32][i] = rErrors[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kScaleSteps; ++i) {
    rErrors[i] = 0;
    for (int warp = 0; warp < kWarps; ++warp) rErrors[i] += sErrors[warp][i];
  }
}

// Grid: one block a row, which it reads three times: for the maximum, for the errors, for the rounding. Runs once, while loading.
__global__ void __launch_bounds__(kQuantizeThreads) quantize_weights_kernel(Rows rows) {
  constexpr int kStep = kQuantizeThreads * kBfloats;
  const bf16* gX = rows.x + blockIdx.x * rows.x_stride;
  fp8* gX8 = rows.x8 + blockIdx.x * rows.x8_stride;
  const int64_t first = threadIdx.x * kBfloats;
  uint32_t largest = 0;
  for (int64_t k = first; k < rows.width; k += kStep) largest = largest_of(load_bfloats(gX + k), largest);
  const float usual = Fp8Scale(block_largest<kQuantizeThreads>(largest)).scale();

  float rErrors[kScaleSteps] = {};
  for (int64_t k = first; k < rows.width; k += kStep) {
    float rX[kBfloats];
    widen(load_bfloats(gX + k), rX);
#pragma unroll
    for (float& x : rX) {
      x /= usual;
#pragma unroll
      for (int i = 0; i < kScaleSteps; ++i) {
        const __nv_fp8_e4m3 near(x * (1.0f / scale_step(i)));
        const float error = fmaf(static_cast<float>(near), -scale_step(i), x);
        rErrors[i] = fmaf(error, error, rErrors[i]);
      }
    }
  }
  sum_errors(rErrors);
  float scale = usual, least = rErrors[0];
#pragma unroll
  for (int i = 1; i < kScaleSteps; ++i) {
    if (rErrors[i] < least) {
      least = rErrors[i];
      scale = usual * scale_step(i);
    }
  }
  if (threadIdx.x == 0) rows.scale[blockIdx.x] = scale;
  for (int64_t k = first; k < rows.width; k += kStep) {
    float rX[kBfloats];
    widen(load_bfloats(gX + k), rX);
#pragma unroll
    for (float& x : rX) x /= scale;
    store_quotients(rX, gX8 + k);
  }
}

struct Scaled {
  void* y;
  const float* rows;
  const float* columns;
  int64_t stride;  // elements between rows
  int64_t width;   // N
};

// Grid: (rows, pieces of a row); a thread takes 16 bytes of y.
template <class T>
__global__ void __launch_bounds__(kScaleThreads) scale_kernel(Scaled op) {
  constexpr int kVector = kVectorBytes / sizeof(T);
  struct alignas(kVectorBytes) Piece { T value[kVector]; };
  const int64_t n = (static_cast<int64_t>(blockIdx.y) * kScaleThreads + threadIdx.x) * kVector;
  if (n >= op.width) return;
  T* gY = static_cast<T*>(op.y) + blockIdx.x * op.stride + n;
  const float row = op.rows[blockIdx.x];
  float rColumns[kVector];
#pragma unroll
  for (int i = 0; i < kVector; i += 4) {
    const float4 four = *reinterpret_cast<const float4*>(op.columns + n + i);
    rColumns[i] = four.x;
    rColumns[i + 1] = four.y;
    rColumns[i + 2] = four.z;
    rColumns[i + 3] = four.w;
  }
  Piece piece = *reinterpret_cast<const Piece*>(gY);
#pragma unroll
  for (int i = 0; i < kVector; ++i) piece.value[i] = static_cast<T>(static_cast<float>(piece.value[i]) * row * rColumns[i]);
  *reinterpret_cast<Piece*>(gY) = piece;
}

template <class T>
void launch_scale(const ApplyScales& op, cudaStream_t stream) {
  constexpr int64_t kPiece = kScaleThreads * (kVectorBytes / sizeof(T));
  const dim3 grid(static_cast<unsigned>(op.y.shape[0]), static_cast<unsigned>((op.y.shape[1] + kPiece - 1) / kPiece));
  scale_kernel<T><<<grid, kScaleThreads, 0, stream>>>({op.y.data, op.rows.data, op.columns.data, op.y.stride[0], op.y.shape[1]});
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

bool aligned(const void* pointer, int64_t stride_bytes) {
  return reinterpret_cast<uintptr_t>(pointer) % kVectorBytes == 0 && stride_bytes % kVectorBytes == 0;
}

Rows checked(const QuantizeFp8& op) {
  const auto [count, width] = op.x.shape;
  CHECK(op.x8.shape == op.x.shape && op.scale.shape[0] == count, op.x8.shape[0], op.x8.shape[1], op.scale.shape[0], count, width);
  CHECK(op.x.stride[1] == 1 && op.x8.stride[1] == 1 && op.scale.stride[0] == 1, op.x.stride[1], op.x8.stride[1], op.scale.stride[0]);
  CHECK(width % kVectorBytes == 0, width);
  const int64_t several = count > 1;  // a single row may have any stride
  CHECK(aligned(op.x.data, several * op.x.stride[0] * 2) && aligned(op.x8.data, several * op.x8.stride[0]), op.x.data, op.x.stride[0],
        op.x8.data, op.x8.stride[0]);
  return {op.x.data, op.x8.data, op.scale.data, op.x.stride[0], op.x8.stride[0], width};
}

}  // namespace

void quantize_fp8_cuda(const QuantizeFp8& op, Stream& stream) {
  const Rows rows = checked(op);
  if (rows.width == 0 || op.x.shape[0] == 0) return;
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  const unsigned blocks = static_cast<unsigned>(op.x.shape[0]);
  const int64_t chunks = (rows.width + kQuantizeThreads * kBfloats - 1) / (kQuantizeThreads * kBfloats);
  if (chunks == 1) quantize_kernel<1><<<blocks, kQuantizeThreads, 0, cuda>>>(rows);
  else if (chunks == 2) quantize_kernel<2><<<blocks, kQuantizeThreads, 0, cuda>>>(rows);
  else if (chunks <= 4) quantize_kernel<4><<<blocks, kQuantizeThreads, 0, cuda>>>(rows);
  else if (chunks <= kMostChunks) quantize_kernel<kMostChunks><<<blocks, kQuantizeThreads, 0, cuda>>>(rows);
  else quantize_kernel<0><<<blocks, kQuantizeThreads, 0, cuda>>>(rows);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

void quantize_weights_fp8_cuda(const QuantizeFp8& op, Stream& stream) {
  const Rows rows = checked(op);
  if (rows.width == 0 || op.x.shape[0] == 0) return;
  quantize_weights_kernel<<<static_cast<unsigned>(op.x.shape[0]), kQuantizeThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(rows);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

void apply_scales_cuda(const ApplyScales& op, Stream& stream) {
  const auto [tokens, outputs] = op.y.shape;
  CHECK(op.rows.shape[0] == tokens && op.columns.shape[0] == outputs, op.rows.shape[0], tokens, op.columns.shape[0], outputs);
  CHECK(op.y.stride[1] == 1 && op.rows.stride[0] == 1 && op.columns.stride[0] == 1, op.y.stride[1], op.rows.stride[0], op.columns.stride[0]);
  CHECK(outputs % kVectorBytes == 0, outputs);
  if (tokens == 0 || outputs == 0) return;
  const int64_t row_bytes = tokens > 1 ? op.y.stride[0] * static_cast<int64_t>(size_of(op.y.dtype)) : 0;
  CHECK(aligned(op.y.data, row_bytes) && aligned(op.columns.data, 0), op.y.data, op.y.stride[0], op.columns.data);
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (op.y.dtype == DType::bf16) return launch_scale<bf16>(op, cuda);
  CHECK(op.y.dtype == DType::f32, name_of(op.y.dtype));
  launch_scale<float>(op, cuda);
}

}  // namespace accrete
