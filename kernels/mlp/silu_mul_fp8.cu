// SiLU and product between fp8 products: gate and up take their factors on the way in, y is rounded to e4m3 on the way out. The bits are
// those of apply_scales, silu_mul and quantize_fp8 one after another.
//
// A row's factor needs its largest number before the first is rounded, and the 8 F bytes of column factors must not be read for each row: so
// a cluster of blocks takes a row, a thread 8 of its numbers and, for all rows that its cluster takes in turn, the same 8, whose column
// factors it keeps. Blocks tell each other their largest numbers through their shared memory, with one barrier a turn. The next turn's rows
// are under way meanwhile.
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
constexpr int kMostCluster = 8;  // blocks; what every Hopper can place
constexpr int kMostThreads = 448;
constexpr int kBlocks = 2;       // that shall share a multiprocessor
constexpr int kStages = 2;       // turns of rows under way or at work
constexpr int kMostWarps = kMostThreads / kWarp;

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

// The thread's eight columns of gate and of up.
struct Columns {
  float gate[kBfloats], up[kBfloats];
};

// What is under way of the thread's part of rows, in shared memory: its own to write and to read, so it waits for nobody but itself.
template <int kRows>
class Staged {
 public:
  __device__ Staged(const Rows& rows, int f) : a_(rows), f_(f) {
    extern __shared__ uint4 sStaged[];  // [kStages][kRows][2][threads]
    mine_ = sStaged + threadIdx.x;
  }
  // Asks for the rows from `first` on. Every turn does, so that turns can be counted.
  __device__ void ask(int turn, int first) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      if (f_ >= a_.width || first + row >= a_.tokens) continue;
      const bf16* from = a_.gate_up + (first + row) * a_.in_stride + f_;
      copy(place(turn, row, 0), from);
      copy(place(turn, row, 1), from + a_.width);
    }
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  // Until all but the last kStages - 1 turns asked for are there.
  __device__ void wait() { asm volatile("cp.async.wait_group %0;" ::"n"(kStages - 1) : "memory"); }
  __device__ Bfloats gate(int turn, int row) const { return *reinterpret_cast<const Bfloats*>(place(turn, row, 0)); }
  __device__ Bfloats up(int turn, int row) const { return *reinterpret_cast<const Bfloats*>(place(turn, row, 1)); }

 private:
  __device__ uint4* place(int turn, int row, int half) const { return mine_ + ((turn % kStages * kRows + row) * 2 + half) * static_cast<int>(blockDim.x); }
  __device__ static void copy(uint4* to, const bf16* from) {
    const auto shared = static_cast<uint32_t>(__cvta_generic_to_shared(to));
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared), "l"(from) : "memory");
  }

  const Rows& a_;
  int f_;
  uint4* mine_;
};

template <bool kFactors>
__device__ Bfloats activated(const Bfloats& rGate, const Bfloats& rUp, float factor, const Columns& columns) {
  float gate[kBfloats], up[kBfloats];
  if constexpr (kFactors) {
    scaled(rGate, factor, columns.gate, gate);
    scaled(rUp, factor, columns.up, up);
  } else {
    widen(rGate, gate);
    widen(rUp, up);
  }
#pragma unroll
  for (int i = 0; i < kBfloats; ++i) gate[i] = gated(gate[i], up[i]);
  return rounded(gate);
}

// Largest numbers of every warp of the cluster, for each row of a turn. Turns alternate between two places, so a block may tell of the next
// while another still reads this one's.
template <int kRows>
using Told = uint32_t[2][kRows][kMostCluster * kMostWarps];

// A warp's largest number goes to every block, a lane each.
template <int kRows>
__device__ void tell(Told<kRows>& sTold, int turn, int row, uint32_t halves) {
  const auto cluster = cg::this_cluster();
  const unsigned lane = threadIdx.x % kWarp, warps = blockDim.x / kWarp;
  const uint32_t largest = warp_largest(halves);
  uint32_t* mine = &sTold[turn][row][cluster.block_rank() * warps + threadIdx.x / kWarp];
  if (lane < cluster.num_blocks()) *cluster.map_shared_rank(mine, lane) = largest;
}

template <int kRows>
__device__ float told(const Told<kRows>& sTold, int turn, int row) {
  const unsigned count = cg::this_cluster().num_blocks() * (blockDim.x / kWarp);
  uint32_t largest = 0;
  for (unsigned i = threadIdx.x % kWarp; i < count; i += kWarp) largest = max(largest, sTold[turn][row][i]);
  return low_of(__reduce_max_sync(0xffffffffu, largest));
}

// Grid: as many clusters as run at once, or as there are rows; kRows of them a turn.
template <int kRows, bool kFactors>
__global__ void __launch_bounds__(kMostThreads, kBlocks) silu_mul_fp8_kernel(const Rows a) {
  __shared__ Told<kRows> sTold;
  const auto cluster = cg::this_cluster();
  const int blocks = static_cast<int>(cluster.num_blocks()), stride = kRows * static_cast<int>(gridDim.x) / blocks;
  const int f = static_cast<int>(cluster.block_rank() * blockDim.x + threadIdx.x) * kBfloats;
  const bool mine = f < a.width;
  Staged<kRows> staged(a, f);
  int first = kRows * (static_cast<int>(blockIdx.x) / blocks);
#pragma unroll
  for (int turn = 0; turn < kStages - 1; ++turn) staged.ask(turn, first + turn * stride);
  float rFactor[kRows];
  const auto load_factors = [&](int from) {
#pragma unroll
    for (int row = 0; row < kRows; ++row) rFactor[row] = kFactors && from + row < a.tokens ? a.factors[from + row] : 1.0f;
  };
  load_factors(first);
  Columns rColumns;
  if constexpr (kFactors) {
    if (mine) {
      load_floats(a.columns + f, rColumns.gate);
      load_floats(a.columns + a.width + f, rColumns.up);
    }
  }
  cluster.sync();  // nobody is told anything before they run
  for (int turn = 0; first < a.tokens; first += stride, ++turn) {
    staged.ask(turn + kStages - 1, first + (kStages - 1) * stride);
    staged.wait();
    Bfloats rY[kRows];
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      rY[row] = activated<kFactors>(staged.gate(turn, row), staged.up(turn, row), rFactor[row], rColumns);
      tell<kRows>(sTold, turn % 2, row, mine ? largest_of(rY[row], 0) : 0);
    }
    load_factors(first + stride);
    cluster.sync();
#pragma unroll
    for (int row = 0; row < kRows; ++row) {
      const int64_t t = first + row;
      if (t >= a.tokens) break;
      const Fp8Scale scale(told<kRows>(sTold, turn % 2, row));
      if (f == 0) a.y_scale[t] = scale.scale();
      if (mine) store_rounded(rY[row], scale, a.y8 + t * a.y8_stride + f);
      if (mine && a.y) store_bfloats(a.y + t * a.y_stride + f, rY[row]);
    }
  }
}

// The cluster's blocks and their threads for a row of `width`.
struct RowShape {
  int blocks, threads;
};
RowShape row_shape(int64_t width) {
  const int64_t pieces = width / kBfloats;
  int64_t blocks = 1;
  while (blocks < kMostCluster && blocks * kMostThreads < pieces) blocks *= 2;
  const int64_t threads = (pieces + blocks - 1) / blocks;
  return {static_cast<int>(blocks), static_cast<int>((threads + kWarp - 1) / kWarp * kWarp)};
}

// A launch of kRows rows a turn.
template <int kRows, bool kFactors>
class Launch {
 public:
  Launch(const Rows& rows, cudaStream_t stream) : rows_(rows) {
    const RowShape shape = row_shape(rows.width);
    cluster_.id = cudaLaunchAttributeClusterDimension;
    cluster_.val.clusterDim = {static_cast<unsigned>(shape.blocks), 1, 1};
    config_.gridDim = dim3(static_cast<unsigned>(shape.blocks));
    config_.blockDim = dim3(static_cast<unsigned>(shape.threads));
    config_.dynamicSmemBytes = static_cast<size_t>(kStages * kRows * 2 * shape.threads) * sizeof(Bfloats);
    config_.stream = stream;
    config_.attrs = &cluster_;
    config_.numAttrs = 1;
    ACCRETE_CUDA_CHECK(cudaFuncSetAttribute(kKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(config_.dynamicSmemBytes)));
  }
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  int64_t most_clusters() const {
    int most = 0;
    ACCRETE_CUDA_CHECK(cudaOccupancyMaxActiveClusters(&most, kKernel, &config_));
    return std::max(most, 1);
  }
  void run(int64_t clusters) {
    config_.gridDim.x = static_cast<unsigned>(clusters) * cluster_.val.clusterDim.x;
    ACCRETE_CUDA_CHECK(cudaLaunchKernelEx(&config_, kKernel, rows_));
  }

 private:
  static constexpr auto kKernel = silu_mul_fp8_kernel<kRows, kFactors>;
  Rows rows_;
  cudaLaunchAttribute cluster_{};
  cudaLaunchConfig_t config_{};
};

template <bool kFactors>
void launch(const Rows& rows, cudaStream_t stream) {
  constexpr int kFew = 16;        // rows that run at once for sure
  constexpr int kFewTurns = 3;    // of one row, which overlap better than fewer of several
  constexpr int kTogether = 2;
  Launch<1, kFactors> one(rows, stream);
  if (rows.tokens <= kFew) return one.run(rows.tokens);
  const int64_t most = one.most_clusters();
  if (rows.tokens <= kFewTurns * most) return one.run(std::min<int64_t>(rows.tokens, most));
  Launch<kTogether, kFactors> several(rows, stream);
  several.run(std::min<int64_t>(several.most_clusters(), (rows.tokens + kTogether - 1) / kTogether));
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
