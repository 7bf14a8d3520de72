#include "kernels/cuda.h"
#include "kernels/device/read_pass.h"

namespace accrete {
namespace {

constexpr int kThreads = 512;
constexpr int kBlocks = 4 * 132;  // 2048 threads a multiprocessor of an H100: as many as it holds
constexpr int kLoads = 4;         // 16 bytes each that a thread has in flight: 128 KiB a multiprocessor
constexpr unsigned kAllLanes = 0xffffffffu;

__device__ inline uint32_t folded(const uint4& four) { return four.x ^ four.y ^ four.z ^ four.w; }

// Grid: kBlocks. Its threads walk through the memory side by side.
__global__ void __launch_bounds__(kThreads) read_pass_kernel(const uint4* words, int64_t count, uint32_t* parity) {
  constexpr int64_t kStep = int64_t{kBlocks} * kThreads;
  int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  uint32_t mine = 0;
  for (; i + (kLoads - 1) * kStep < count; i += kLoads * kStep) {
    uint4 rPiece[kLoads];
#pragma unroll
    for (int load = 0; load < kLoads; ++load) rPiece[load] = words[i + load * kStep];
#pragma unroll
    for (int load = 0; load < kLoads; ++load) mine ^= folded(rPiece[load]);
  }
  for (; i < count; i += kStep) mine ^= folded(words[i]);
  mine = __reduce_xor_sync(kAllLanes, mine);
  // Any order gives the same parity, and nobody reads it before the kernel's end.
  if (threadIdx.x % 32 == 0) atomicXor(parity, mine);
}

}  // namespace

void read_pass_cuda(const ReadPass& op, Stream& stream) {
  constexpr int64_t kWords = sizeof(uint4) / sizeof(uint32_t);
  const int64_t count = op.words.shape[0];
  CHECK(count % kWords == 0 && op.words.stride[0] == 1 && op.parity.shape[0] == 1, count, op.words.stride[0], op.parity.shape[0]);
  CHECK(reinterpret_cast<uintptr_t>(op.words.data) % sizeof(uint4) == 0, op.words.data);
  if (count == 0) return;
  read_pass_kernel<<<kBlocks, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(reinterpret_cast<const uint4*>(op.words.data), count / kWords,
                                                                                     op.parity.data);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete
