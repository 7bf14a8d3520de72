// The largest logit of rows that are greedy and unedited, at the speed of memory: many small blocks a row, each over a part of it,
// 16 bytes a load.
#include "kernels/sampling/device_row.cuh"
#include "kernels/sampling/device_steps.h"

namespace accrete {
namespace {

constexpr int kThreads = 256;
constexpr int kLeastPart = 4096;     // logits a block is worth: four 16-byte loads a thread
constexpr int64_t kBlocks = 8 * 132;  // as many as an H100 holds at once

struct Largest {
  LogitRows rows;
  SamplerTables tables;
  const int32_t* state_row;  // [n]
  const int32_t* position;   // [n]
};

struct Best {
  float logit = -__builtin_huge_valf();
  int token = 0;  // of the first such logit; meaningless for -inf
  bool unusable = false;

  // In order of ids: of equals the first stays.
  __device__ void see(float other, int id) {
    unusable |= !(other < __builtin_huge_valf());
    if (other > logit) {
      logit = other;
      token = id;
    }
  }
};

__device__ Best scan(const float* gLogits, int begin, int end, bool vectors) {
  Best best;
  if (!vectors) {
    for (int i = begin + threadIdx.x; i < end; i += kThreads) best.see(gLogits[i], i);
    return best;
  }
#pragma unroll 4
  for (int i = begin + threadIdx.x * 4; i < end; i += kThreads * 4) {
    const float4 four = *reinterpret_cast<const float4*>(gLogits + i);
    best.see(four.x, i);
    best.see(four.y, i + 1);
    best.see(four.z, i + 2);
    best.see(four.w, i + 3);
  }
  return best;
}

// Grid: [n, parts].
__global__ void __launch_bounds__(kThreads) largest_kernel(Largest args) {
  const int slot = blockIdx.x;
  const int state = args.state_row[slot];
  if (state < 0 || !args.tables.rows[state].plain(args.position[slot])) return;
  const int length = slice_length(args.rows.vocabulary, gridDim.y);
  const int begin = min(args.rows.vocabulary, static_cast<int>(blockIdx.y) * length);
  const int end = min(args.rows.vocabulary, begin + length);
  const Best mine = scan(args.rows.data + slot * args.rows.stride, begin, end, args.rows.vectors);
  uint64_t* sBest = static_cast<uint64_t*>(block_memory());  // [kThreads / kLanes]
  const uint64_t best = warp_largest(mine.unusable ? kUnusable : ranked(mine.logit, mine.token));
  if (threadIdx.x % kLanes == 0) sBest[threadIdx.x / kLanes] = best;
  __syncthreads();
  if (threadIdx.x >= kLanes) return;
  const uint64_t all = warp_largest(threadIdx.x < kThreads / kLanes ? sBest[threadIdx.x] : 0);
  if (threadIdx.x == 0) args.tables.greedy_parts[int64_t{slot} * kMostGreedyParts + blockIdx.y] = all;
}

}  // namespace

int greedy_parts(int64_t n, int64_t vocabulary) {
  const int64_t enough = (kBlocks + n - 1) / n;
  const int64_t worth = (vocabulary + kLeastPart - 1) / kLeastPart;
  const int64_t parts = enough < worth ? enough : worth;
  return static_cast<int>(parts < kMostGreedyParts ? parts : kMostGreedyParts);
}

void find_largest(const SampleDevice& op, Stream& stream) {
  const int64_t n = op.logits.shape[0];
  const Largest arguments{logit_rows(op.logits), op.tables, op.state_row, op.position};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(n), static_cast<unsigned>(greedy_parts(n, op.logits.shape[1])));
  config.blockDim = dim3(kThreads);
  config.dynamicSmemBytes = sizeof(uint64_t) * kThreads / kLanes;
  config.stream = static_cast<cudaStream_t>(stream.cuda);
  ACCRETE_CUDA_CHECK(cudaLaunchKernelEx(&config, largest_kernel, arguments));
}

}  // namespace accrete
