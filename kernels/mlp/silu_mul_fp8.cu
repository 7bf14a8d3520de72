// SiLU and product between fp8 products: gate and up take their factors on the way in, y is rounded to e4m3 on the way out. The bits are
// those of apply_scales, silu_mul and quantize_fp8 one after another.
//
// A row's factor needs its largest number before the first is rounded, and the 8 F bytes of column factors must not be fetched for each row:
// so a cluster of blocks takes a row, a thread the same 8 or 16 of its numbers in all rows that its cluster takes in turn, and their column
// factors stay in shared memory. Blocks tell each other their largest numbers through that memory, with one barrier a row; while the others
// have not told theirs a block computes the next row, and the one after that is under way.
#include <cooperative_groups.h>

#include <algorithm>

#include "kernels/cuda.h"
#include "kernels/gemm/fp8_rows.cuh"
#include "kernels/mlp/gated.cuh"
#include "kernels/mlp/silu_mul_fp8.h"

namespace accrete {
namespace {

namespace cg = cooperative_groups;

constexpr int kWarp = 32;
constexpr int kMostCluster = 8;     // blocks; what every Hopper can place
constexpr int kMostThreads = 448;
constexpr int kBlocks = 2;          // that share a multiprocessor
constexpr int kStages = 2;          // rows under way or at work
constexpr int kMostPieces = 2;      // of 8 numbers a thread has of a row

static_assert(kWidestFp8Mlp <= kMostCluster * kMostThreads * kBfloats);

struct Rows {
  const bf16* gate_up;   // [T, 2 F]
  const float* factors;  // [T] of rows, or null
  const float* columns;  // [2 F]
  bf16* y;               // [T, F] or null
  fp8* y8;               // [T, F]
  float* y_scale;        // [T]
  int64_t in_stride, y_stride, y8_stride;  // elements between rows
  int tokens, width;                       // T, F
};

// The thread's columns, and what is under way of them: in shared memory, its own to write and to read, so it waits for nobody but itself.
template <int kPieces, bool kFactors>
class Staged {
 public:
  static constexpr int kPlaces = kPieces * (kStages * 2 + (kFactors ? 4 : 0));  // of 16 bytes a thread

  __device__ explicit Staged(const Rows& rows) : a_(rows) {
    extern __shared__ uint4 sStaged[];  // [kPlaces][threads]
    const auto cluster = cg::this_cluster();
    mine_ = sStaged + threadIdx.x;
    first_ = static_cast<int>(cluster.block_rank() * blockDim.x + threadIdx.x) * kBfloats;
    step_ = static_cast<int>(cluster.num_blocks() * blockDim.x) * kBfloats;
  }
  // The first column of a piece; past the last one where the row has no more.
  __device__ int column(int piece) const { return first_ + piece * step_; }
  // With the first row.
  __device__ void ask_factors() {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int f = column(piece);
      if (f >= a_.width) continue;
#pragma unroll
      for (int part = 0; part < 4; ++part) copy(place(kStages, piece, part), a_.columns + (part / 2) * a_.width + f + part % 2 * 4);
    }
  }
  // Every turn asks, of nothing when there is nothing more, so that they can be counted.
  __device__ void ask(int turn, int64_t t) {
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int f = column(piece);
      if (f >= a_.width || t >= a_.tokens) continue;
      const bf16* from = a_.gate_up + t * a_.in_stride + f;
      copy(place(turn % kStages, piece, 0), from);
      copy(place(turn % kStages, piece, 1), from + a_.width);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  // Until all but the last kStages - 1 turns asked for are there.
  __device__ void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 1) : "memory"); }
  // half 0: gate, 1: up, times their factors.
  __device__ void read(int turn, int piece, int half, float factor, float (&to)[kBfloats]) const {
    const Bfloats sums = *reinterpret_cast<const Bfloats*>(place(turn % kStages, piece, half));
    if constexpr (kFactors) {
      const float4 low = *reinterpret_cast<const float4*>(place(kStages, piece, half * 2));
      const float4 high = *reinterpret_cast<const float4*>(place(kStages, piece, half * 2 + 1));
      scaled(sums, factor, {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w}, to);
    } else {
      widen(sums, to);
    }
  }

 private:
  // Stages have two parts a piece, the factors behind them four.
  __device__ uint4* place(int stage, int piece, int part) const {
    const int parts = stage < kStages ? 2 : 4;
    return mine_ + (stage * kPieces * 2 + piece * parts + part) * static_cast<int>(blockDim.x);
  }
  template <class T>
  __device__ static void copy(uint4* to, const T* from) {
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
  }

  const Rows& a_;
  uint4* mine_;
  int first_, step_;
};

// Largest numbers of every warp of the cluster. Turns alternate between two places, so a block may tell of the next row while another still
// reads this one's.
using Told = uint32_t[2][kMostCluster * kMostThreads / kWarp];

// A warp's largest number goes to every block, a lane each.
__device__ void tell(Told& sTold, int turn, uint32_t halves) {
  const auto cluster = cg::this_cluster();
  const unsigned lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  const uint32_t largest = warp_largest(halves);
  uint32_t* mine = &sTold[turn % 2][cluster.block_rank() * warps + threadIdx.x / kWarp];
  if (lane < cluster.num_blocks()) *cluster.map_shared_rank(mine, lane) = largest;
}

__device__ float told(const Told& sTold, int turn) {
  const unsigned count = cg::this_cluster().num_blocks() * (blockDim.x / kWarp);
  uint32_t largest = 0;
#pragma unroll 1
  for (unsigned i = threadIdx.x % kWarp; i < count; i += kWarp) largest = max(largest, sTold[turn % 2][i]);
  return low_of(__reduce_max_sync(0xffffffffu, largest));
}

// Grid: as many clusters as run at once, or as there are rows.
template <int kPieces, bool kFactors>
__global__ void __launch_bounds__(kMostThreads, kBlocks) silu_mul_fp8_kernel(const Rows a) {
  __shared__ Told sTold;
  const auto cluster = cg::this_cluster();
  cluster.barrier_arrive();  // nobody is told anything before they run
  const int blocks = static_cast<int>(cluster.num_blocks()), stride = static_cast<int>(gridDim.x) / blocks;
  int64_t t = static_cast<int>(blockIdx.x) / blocks;
  const auto factor_of = [&](int64_t row) { return kFactors && row < a.tokens ? a.factors[row] : 1.0f; };
  float factor = factor_of(t);
  Staged<kPieces, kFactors> staged(a);
  if constexpr (kFactors) staged.ask_factors();
#pragma unroll
  for (int turn = 0; turn < kStages - 1; ++turn) staged.ask(turn, t + turn * stride);
  Bfloats rY[kPieces];
  // Of a row that everybody has told of.
  const auto finish = [&](int64_t row, int turn) {
    const Fp8Scale scale(told(sTold, turn));
    if (staged.column(0) == 0) a.y_scale[row] = scale.scale();
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      const int f = staged.column(piece);
      if (f >= a.width) continue;
      store_rounded(rY[piece], scale, a.y8 + row * a.y8_stride + f);
      if (a.y) store_bfloats(a.y + row * a.y_stride + f, rY[piece]);
    }
  };
  int turn = 0;
  for (; t < a.tokens; t += stride, ++turn) {
    staged.ask(turn + kStages - 1, t + (kStages - 1) * stride);
    staged.wait();
    Bfloats rNext[kPieces];
    uint32_t largest = 0;
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      float gate[kBfloats], up[kBfloats];
      staged.read(turn, piece, 0, factor, gate);
      staged.read(turn, piece, 1, factor, up);
#pragma unroll
      for (int i = 0; i < kBfloats; ++i) gate[i] = gated(gate[i], up[i]);
      rNext[piece] = rounded(gate);
      if (staged.column(piece) < a.width) largest = largest_of(rNext[piece], largest);
    }
    factor = factor_of(t + stride);
    cluster.barrier_wait();
    if (turn > 0) finish(t - stride, turn - 1);
    tell(sTold, turn, largest);
    cluster.barrier_arrive();
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) rY[piece] = rNext[piece];
  }
  cluster.barrier_wait();
  finish(t - stride, turn - 1);
}

// The cluster's blocks and their threads for a row of `width`.
struct RowShape {
  int blocks, threads;
};
RowShape row_shape(int64_t width, int pieces) {
  const int64_t all = (width + kBfloats * pieces - 1) / (kBfloats * pieces);
  int64_t blocks = 1;
  while (blocks * kMostThreads < all) blocks *= 2;
  const int64_t threads = (all + blocks - 1) / blocks;
  return {static_cast<int>(blocks), static_cast<int>((threads + kWarp - 1) / kWarp * kWarp)};
}

template <int kPieces, bool kFactors>
void launch_pieces(const Rows& rows, cudaStream_t stream) {
  constexpr int kFew = 16;  // rows that run at once for sure
  constexpr auto kKernel = silu_mul_fp8_kernel<kPieces, kFactors>;
  const RowShape shape = row_shape(rows.width, kPieces);
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(shape.blocks), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(shape.blocks));
  config.blockDim = dim3(static_cast<unsigned>(shape.threads));
  config.dynamicSmemBytes = static_cast<size_t>(Staged<kPieces, kFactors>::kPlaces * shape.threads) * sizeof(Bfloats);
  config.stream = stream;
  config.attrs = &cluster;
  config.numAttrs = 1;
  ACCRETE_CUDA_CHECK(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(config.dynamicSmemBytes)));
  int most = kFew;
  if (rows.tokens > kFew) ACCRETE_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&most, kKernel, &config));
  config.gridDim.x *= static_cast<unsigned>(std::clamp(most, 1, rows.tokens));
  ACCRETE_CUDA_CHECK(cudaLaunchKernelEx(&config, kKernel, rows));
}

// One piece a thread where rows are so few that more threads are there for them.
template <bool kFactors>
void launch(const Rows& rows, cudaStream_t stream) {
  constexpr int kFew = 32;
  if (rows.tokens <= kFew) launch_pieces<1, kFactors>(rows, stream);
  else launch_pieces<kMostPieces, kFactors>(rows, stream);
}

bool aligned(const void* pointer, int64_t stride_bytes) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0 && stride_bytes % 16 == 0; }

void check_fp8(const SiluMul& op) {
  const auto [tokens, width] = op.y8.values.shape;
  CHECK(op.gate_up.dtype == DType::bf16, name_of(op.gate_up.dtype));
  CHECK(op.gate_up.shape[0] == tokens && op.gate_up.shape[1] == 2 * width && op.gate_up.stride[1] == 1, op.gate_up.shape[0], op.gate_up.shape[1], tokens, width);
  CHECK(width % 16 == 0 && width <= kWidestFp8Mlp && tokens <= INT32_MAX, width, tokens);
  CHECK(aligned(op.gate_up.data, op.gate_up.stride[0] * 2), op.gate_up.data, op.gate_up.stride[0]);
  CHECK(op.y8.values.stride[1] == 1 && aligned(op.y8.values.data, op.y8.values.stride[0]), op.y8.values.data, op.y8.values.stride[0]);
  CHECK(op.y8.scale.shape[0] == tokens && op.y8.scale.stride[0] == 1, op.y8.scale.shape[0], tokens);
  if (op.y.data) {
    CHECK(op.y.shape == op.y8.values.shape && op.y.dtype == DType::bf16 && op.y.stride[1] == 1, op.y.shape[0], op.y.shape[1], name_of(op.y.dtype));
    CHECK(aligned(op.y.data, op.y.stride[0] * 2), op.y.data, op.y.stride[0]);
  }
  const Factors& f = op.factors;
  if (!f.rows.data) return;
  CHECK(f.rows.shape[0] == tokens && f.columns.shape[0] == 2 * width, f.rows.shape[0], tokens, f.columns.shape[0], width);
  CHECK(f.rows.stride[0] == 1 && f.columns.stride[0] == 1 && aligned(f.columns.data, 0), f.columns.data);
}

}  // namespace

void silu_mul_fp8_cuda(const SiluMul& op, Stream& stream) {
  check_fp8(op);
  const auto [tokens, width] = op.y8.values.shape;
  if (tokens == 0 || width == 0) return;
  const Rows rows{.gate_up = static_cast<const bf16*>(op.gate_up.data), .factors = op.factors.rows.data, .columns = op.factors.columns.data,
                  .y = static_cast<bf16*>(op.y.data), .y8 = op.y8.values.data, .y_scale = op.y8.scale.data, .in_stride = op.gate_up.stride[0],
                  .y_stride = op.y.stride[0], .y8_stride = op.y8.values.stride[0], .tokens = static_cast<int>(tokens), .width = static_cast<int>(width)};
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (rows.factors) launch<true>(rows, cuda);
  else launch<false>(rows, cuda);
}

}  // namespace accrete
