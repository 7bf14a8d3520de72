// The threads that share one row of logits: a cluster of 1, 2, 4 or 8 thread blocks, each with a slice of the row in its shared
// memory. Sums and maxima over all of them, and the little of CUDA that the sampling kernels stand on.
#pragma once

#include <cooperative_groups.h>

#include <cstdint>

namespace accrete {

constexpr int kLanes = 32;
constexpr int kRowThreads = 512;
constexpr int kRowWarps = kRowThreads / kLanes;
constexpr int kRowBlocks = 2;    // that a multiprocessor's registers must hold at once
constexpr int kMostCluster = 8;  // what every Hopper can place

__device__ inline void cluster_barrier() { cooperative_groups::this_cluster().sync(); }
__device__ inline uint32_t cluster_size() { return cooperative_groups::this_cluster().num_blocks(); }
__device__ inline uint32_t cluster_rank() { return cooperative_groups::this_cluster().block_rank(); }
// The same variable in the shared memory of block `rank` of the cluster.
template <class T>
__device__ inline const T* in_block(const T* shared, uint32_t rank) {
  return cooperative_groups::this_cluster().map_shared_rank(const_cast<T*>(shared), rank);
}
// The block's dynamic shared memory.
__device__ inline void* block_memory() {
  extern __shared__ uint4 sMemory[];
  return sMemory;
}

// Every lane of the warp calls these.
__device__ inline uint64_t warp_sum(uint64_t value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    value += __shfl_xor_sync(0xffffffffu, static_cast<unsigned long long>(value), offset);
  }
  return value;
}
__device__ inline uint64_t warp_largest(uint64_t value) {
#pragma unroll
  for (int offset = kLanes / 2; offset > 0; offset /= 2) {
    const uint64_t other = __shfl_xor_sync(0xffffffffu, static_cast<unsigned long long>(value), offset);
    value = other > value ? other : value;
  }
  return value;
}
// The sum up to and including the own lane's.
__device__ inline uint64_t warp_prefix(uint64_t value) {
  const int lane = threadIdx.x % kLanes;
#pragma unroll
  for (int offset = 1; offset < kLanes; offset *= 2) {
    const uint64_t other = __shfl_up_sync(0xffffffffu, static_cast<unsigned long long>(value), offset);
    if (lane >= offset) value += other;
  }
  return value;
}
__device__ inline uint64_t warp_value(uint64_t value, int lane) {
  return __shfl_sync(0xffffffffu, static_cast<unsigned long long>(value), lane);
}
// The first lane that says yes, or -1.
__device__ inline int warp_first(bool yes) { return __ffs(static_cast<int>(__ballot_sync(0xffffffffu, yes))) - 1; }

// Reductions over a cluster, with one barrier each. Every thread of every block calls them, in the same order. Results alternate
// between two places, so a block may start the next while another still reads this one's.
class ClusterRow {
 public:
  using Parts = uint64_t[2][kRowWarps];  // in shared memory
  __device__ explicit ClusterRow(Parts& sParts) : rank(cluster_rank()), size(cluster_size()), parts_(sParts) {}

  __device__ uint64_t sum(uint64_t value) {
    publish(warp_sum(value));
    uint64_t all = 0;
    for (uint32_t i = lane(); i < size * kRowWarps; i += kLanes) all += part(i);
    turn_ ^= 1;
    return warp_sum(all);
  }
  __device__ uint64_t largest(uint64_t value) {
    publish(warp_largest(value));
    uint64_t all = 0;
    for (uint32_t i = lane(); i < size * kRowWarps; i += kLanes) all = part(i) > all ? part(i) : all;
    turn_ ^= 1;
    return warp_largest(all);
  }
  // The sum over the warps before this one, blocks in order of rank; `warp_value` is alike in all lanes.
  __device__ uint64_t sum_before(uint64_t warp_value) {
    publish(warp_value);
    const uint32_t mine = rank * kRowWarps + threadIdx.x / kLanes;
    uint64_t before = 0;
    for (uint32_t i = lane(); i < mine; i += kLanes) before += part(i);
    turn_ ^= 1;
    return warp_sum(before);
  }

  const uint32_t rank;
  const uint32_t size;

 private:
  __device__ static uint32_t lane() { return threadIdx.x % kLanes; }
  __device__ void publish(uint64_t warp_value) {
    if (lane() == 0) parts_[turn_][threadIdx.x / kLanes] = warp_value;
    cluster_barrier();
  }
  __device__ uint64_t part(uint32_t i) const { return *in_block(&parts_[turn_][i % kRowWarps], i / kRowWarps); }

  Parts& parts_;
  int turn_ = 0;
};

}  // namespace accrete
