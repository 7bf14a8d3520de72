// One row of logits brought into the shared memory of a cluster, and the launch of kernels that work so. Clusters are as large as
// the row needs, and larger where there are few rows.
#pragma once

#include "kernels/cuda.h"
#include "kernels/sampling/device_select.cuh"
#include "kernels/sampling/sample_device.h"

namespace accrete {

struct RowMemory {
  ClusterRow::Parts parts;
  SelectMemory select;
  uint64_t best[kMostTopLogprobs];  // the block's part of the best tokens
  uint32_t best_count;
};
static_assert(sizeof(RowMemory) % 16 == 0, "the slice that follows is read 16 bytes at a time");

struct LogitRows {
  const float* data;   // [n, V]
  int64_t stride;      // elements between rows
  int vocabulary;
  bool vectors;        // every row is 16-byte aligned and V a multiple of 4
};

__host__ __device__ inline int slice_length(int vocabulary, int blocks) {
  return ((vocabulary + blocks - 1) / blocks + 3) / 4 * 4;
}

__device__ inline RowSlice slice_of(RowMemory& s, const ClusterRow& cluster, int vocabulary) {
  const int length = slice_length(vocabulary, static_cast<int>(cluster.size));
  const int begin = min(vocabulary, static_cast<int>(cluster.rank) * length);
  return {reinterpret_cast<float*>(&s + 1), begin, min(vocabulary, begin + length) - begin};
}

// Fills the thread's part of the slice (all of it after a barrier); whether the thread met NaN or +inf.
__device__ inline bool load_slice(const LogitRows& rows, int64_t row, const RowSlice& slice) {
  const float* gLogits = rows.data + row * rows.stride + slice.begin;
  bool unusable = false;
  if (rows.vectors) {
#pragma unroll 4
    for (int i = threadIdx.x * 4; i < slice.count; i += kRowThreads * 4) {
      const float4 four = *reinterpret_cast<const float4*>(gLogits + i);
      *reinterpret_cast<float4*>(slice.sValue + i) = four;
      unusable |= !(four.x < __builtin_huge_valf()) || !(four.y < __builtin_huge_valf());
      unusable |= !(four.z < __builtin_huge_valf()) || !(four.w < __builtin_huge_valf());
    }
    return unusable;
  }
  for (int i = threadIdx.x; i < slice.count; i += kRowThreads) {
    slice.sValue[i] = gLogits[i];
    unusable |= !(gLogits[i] < __builtin_huge_valf());
  }
  return unusable;
}

// The row's best token (device_weights.h), kUnusable when any thread says so; in every thread. The slice is complete.
__device__ inline uint64_t best_of(ClusterRow& cluster, const RowSlice& slice, bool unusable) {
  uint64_t best = unusable ? kUnusable : 0;
  for (int i = threadIdx.x; i < slice.count; i += kRowThreads) {
    const uint64_t mine = ranked(slice.sValue[i], slice.begin + i);
    best = mine > best ? mine : best;
  }
  return cluster.largest(best);
}

// Host side. LogitRows of a view, checked.
LogitRows logit_rows(const View<const float, 2>& logits);
// Blocks in a row's cluster, for n rows.
int blocks_of_row(int64_t n, int vocabulary);

// A kernel over n rows, a cluster each, with a RowMemory and a slice in each block.
template <class Arguments>
void launch_rows(void (*kernel)(Arguments), const Arguments& arguments, int64_t n, void* stream) {
  const int blocks = blocks_of_row(n, arguments.rows.vocabulary);
  const size_t bytes = sizeof(RowMemory) + sizeof(float) * slice_length(arguments.rows.vocabulary, blocks);
  ACCRETE_CUDA_CHECK(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(bytes)));
  cudaLaunchAttribute cluster{};
  cluster.id = cudaLaunchAttributeClusterDimension;
  cluster.val.clusterDim = {static_cast<unsigned>(blocks), 1, 1};
  cudaLaunchConfig_t config{};
  config.gridDim = dim3(static_cast<unsigned>(n * blocks));
  config.blockDim = dim3(kRowThreads);
  config.dynamicSmemBytes = bytes;
  config.stream = static_cast<cudaStream_t>(stream);
  config.attrs = &cluster;
  config.numAttrs = 1;
  ACCRETE_CUDA_CHECK(cudaLaunchKernelEx(&config, kernel, arguments));
}

}  // namespace accrete
