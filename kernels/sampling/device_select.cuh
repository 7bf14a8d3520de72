// Selection without sorting, over a row that a cluster holds in shared memory. Elements have a key and a measure (1 to count them,
// the weight for mass); the threshold is the key of the element with which the best elements' measure reaches what is needed. It is
// found 11, 11 and 10 bits at a time from histograms of the measure. All sums are of integers: exact, whatever the order.
#pragma once

#include "kernels/sampling/device_cluster.cuh"
#include "kernels/sampling/device_weights.h"

namespace accrete {

constexpr int kDigits = 3;
constexpr int kBuckets = 2048;
constexpr int kThreadBuckets = kBuckets / kRowThreads;
static_assert(kThreadBuckets == 4, "a thread reads its buckets as one uint4");

// 64-bit sums in halves: shared memory adds 32 bits atomically in one instruction, 64 in a loop.
struct alignas(16) SelectMemory {
  uint32_t low[kBuckets];
  uint32_t high[kBuckets];
  uint64_t warp[kRowWarps];
  uint64_t above;    // measure of the better buckets
  uint64_t measure;  // of the bucket
  uint32_t bucket;
};

// The part of a row that this block holds: ids [begin, begin + count).
struct RowSlice {
  float* sValue;  // [count] in shared memory
  int begin;
  int count;
};

struct Threshold {
  uint32_t key = 0;
  int32_t last_tie = INT32_MAX;  // of the elements with that key, those with larger ids are out
  __device__ bool keeps(uint32_t other, int32_t token) const { return other > key || (other == key && token <= last_tie); }
};

struct ByLogit {
  static constexpr bool kCounts = true;
  const float* sValue;
  __device__ uint32_t key(int i) const { return order_key(sValue[i]); }
  __device__ uint64_t measure(int) const { return 1; }
  __device__ uint64_t measure_of_key(uint32_t) const { return 1; }
};
// Weights are not negative, so their bits order them.
struct ByWeight {
  static constexpr bool kCounts = false;
  const float* sValue;
  float least;  // lighter ones are known to be out
  __device__ uint32_t key(int i) const { return __float_as_uint(sValue[i]); }
  __device__ uint64_t measure(int i) const { return sValue[i] >= least ? fixed_weight(sValue[i]) : 0; }
  __device__ uint64_t measure_of_key(uint32_t key) const { return fixed_weight(__uint_as_float(key)); }
};

// kCounts: the measure is 1 and cannot carry, so nobody waits for what was there before.
template <bool kCounts>
__device__ inline void add_measure(SelectMemory& s, uint32_t bucket, uint64_t measure) {
  if constexpr (kCounts) {
    atomicAdd(&s.low[bucket], 1);
    return;
  }
  const uint32_t low = static_cast<uint32_t>(measure);
  const uint32_t before = atomicAdd(&s.low[bucket], low);
  const uint32_t carry = before + low < low;
  const uint32_t high = static_cast<uint32_t>(measure >> 32) + carry;
  if (high != 0) atomicAdd(&s.high[bucket], high);
}

// Each thread's four buckets over all blocks of the cluster; thread 0 has the best.
__device__ inline void read_buckets(const SelectMemory& s, const ClusterRow& cluster, uint64_t (&rMeasure)[kThreadBuckets]) {
  const int first = (kRowThreads - 1 - threadIdx.x) * kThreadBuckets;
  for (uint32_t rank = 0; rank < cluster.size; ++rank) {
    const uint4 low = *reinterpret_cast<const uint4*>(in_block(&s.low[first], rank));
    const uint4 high = *reinterpret_cast<const uint4*>(in_block(&s.high[first], rank));
    rMeasure[0] += uint64_t{high.x} << 32 | low.x;
    rMeasure[1] += uint64_t{high.y} << 32 | low.y;
    rMeasure[2] += uint64_t{high.z} << 32 | low.z;
    rMeasure[3] += uint64_t{high.w} << 32 | low.w;
  }
}

// Leaves in s the bucket in which `need` is reached, counted from the best. The same in every block.
__device__ inline void find_bucket(SelectMemory& s, const ClusterRow& cluster, uint64_t need) {
  uint64_t rMeasure[kThreadBuckets] = {};
  read_buckets(s, cluster, rMeasure);
  const uint64_t mine = rMeasure[0] + rMeasure[1] + rMeasure[2] + rMeasure[3];
  const uint64_t up_to_mine = warp_prefix(mine);
  const int warp = threadIdx.x / kLanes;
  if (threadIdx.x % kLanes == kLanes - 1) s.warp[warp] = up_to_mine;
  __syncthreads();
  uint64_t above = up_to_mine - mine;
  for (int i = 0; i < warp; ++i) above += s.warp[i];
#pragma unroll
  for (int i = kThreadBuckets - 1; i >= 0; --i) {
    if (above < need && need <= above + rMeasure[i]) {
      s.bucket = (kRowThreads - 1 - threadIdx.x) * kThreadBuckets + i;
      s.above = above;
      s.measure = rMeasure[i];
    }
    above += rMeasure[i];
  }
}

// The element of the slice, as an index into it, at which the running sum of measures, in order of ids over the whole row, first
// exceeds `target`; -1 in all warps but the one that holds it. Each warp sums a stretch, then one walks its own.
template <class Measure>
__device__ int locate(ClusterRow& cluster, int count, const Measure& measure, uint64_t target) {
  const int lane = threadIdx.x % kLanes;
  const int stretch = (count + kRowThreads - 1) / kRowThreads * kLanes;
  const int from = min(count, static_cast<int>(threadIdx.x) / kLanes * stretch);
  const int end = min(count, from + stretch);
  uint64_t mine = 0;
  for (int i = from + lane; i < end; i += kLanes) mine += measure(i);
  mine = warp_sum(mine);
  const uint64_t before = cluster.sum_before(mine);
  if (target < before || target - before >= mine) return -1;
  uint64_t rest = target - before;
  for (int start = from; start < end; start += kLanes) {
    const uint64_t up_to = warp_prefix(start + lane < end ? measure(start + lane) : 0);
    const int first = warp_first(up_to > rest);
    if (first >= 0) return start + first;
    rest -= warp_value(up_to, kLanes - 1);
  }
  return -1;
}

// Elements that share the threshold's key: what is needed of them, and all they have.
struct Ties {
  uint32_t key;
  uint64_t need, measure;
};

// Keeps as many ties as are needed, those with the smallest ids.
template <class Elements>
__device__ Threshold cut_ties(ClusterRow& cluster, const RowSlice& slice, const Elements& elements, const Ties& ties) {
  const uint64_t each = elements.measure_of_key(ties.key);
  const uint64_t keep = (ties.need + each - 1) / each;
  if (keep * each >= ties.measure) return {ties.key};
  const auto is_tie = [&](int i) { return uint64_t{elements.key(i) == ties.key}; };
  const int found = locate(cluster, slice.count, is_tie, keep - 1);
  const uint64_t after = cluster.largest(found < 0 ? 0 : static_cast<uint64_t>(slice.begin + found) + 1);
  return {ties.key, static_cast<int32_t>(after) - 1};
}

// The best elements of the row whose measure reaches `need`: from 1 to the measure of all. Ties go to the smallest ids.
template <class Elements>
__device__ Threshold select_best(SelectMemory& s, ClusterRow& cluster, const RowSlice& slice, const Elements& elements, uint64_t need) {
  uint32_t prefix = 0;
  uint64_t ties = 0;  // measure of the elements whose key starts with prefix
#pragma unroll
  for (int digit = 0; digit < kDigits; ++digit) {
    const int bits = digit == 2 ? 10 : 11;
    const int shift = digit == 0 ? 21 : digit == 1 ? 10 : 0;
    for (int i = threadIdx.x; i < kBuckets; i += kRowThreads) s.low[i] = s.high[i] = 0;
    __syncthreads();
    for (int i = threadIdx.x; i < slice.count; i += kRowThreads) {
      const uint32_t key = elements.key(i);
      if (static_cast<uint64_t>(key) >> (shift + bits) != prefix) continue;
      const uint64_t measure = elements.measure(i);
      if (measure != 0) add_measure<Elements::kCounts>(s, (key >> shift) & ((1u << bits) - 1), measure);
    }
    cluster_barrier();
    find_bucket(s, cluster, need);
    cluster_barrier();  // every block has read every histogram
    prefix = prefix << bits | s.bucket;
    need -= s.above;
    ties = s.measure;
  }
  return cut_ties(cluster, slice, elements, {prefix, need, ties});
}

}  // namespace accrete
