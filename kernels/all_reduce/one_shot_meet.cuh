// How blocks of the one-shot all-reduce meet their counterparts on the other ranks' GPUs.
//
// Block b of a rank works on the same elements as block b of every other rank, so only counterparts wait for each other. Why two halves of
// staging memory are enough: a block that writes operation n into its half follows, in its rank's stream, a whole launch of operation
// n - 1, and that saw a flag n - 1 of every peer. A peer sets flag n - 1 in a launch that follows all of its own launch of n - 2, the last
// one to read that half. This needs every rank's launches to follow each other completely: one stream, no programmatic dependent launch.
#pragma once

#include "kernels/all_reduce/one_shot.h"

namespace accrete::one_shot {

constexpr uint32_t kLooks = 256;  // at a flag between two looks at the clock and the host: some 0.1 ms
constexpr unsigned kNapNs = 100;  // between looks after that many

// Release at system scope: whoever acquires the value, on any GPU, sees all that this thread wrote before, and all that its block wrote
// before the barrier that this thread has passed (the order is cumulative).
__device__ inline void release(uint64_t* flag, uint64_t value) {
  asm volatile("st.release.sys.global.u64 [%0], %1;" ::"l"(flag), "l"(value) : "memory");
}
// Acquire at system scope: pairs with release. The loads that follow, here or in the block past its next barrier, see what was written
// before the release; old lines of the first-level cache do not survive it.
__device__ inline uint64_t acquire(const uint64_t* flag) {
  uint64_t value;
  asm volatile("ld.acquire.sys.global.u64 %0, [%1];" : "=l"(value) : "l"(flag) : "memory");
  return value;
}
__device__ inline uint64_t clock_ns() {
  uint64_t value;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(value));
  return value;
}

struct Operation {
  uint64_t number;  // from 1
  uint64_t bytes;
  OneShotKind kind;
};

__device__ inline size_t half_of(const OneShotRef& ranks, uint64_t number) { return number % 2 * ranks.capacity; }

// 0 when `peer`'s block has staged the operation, else kOneShotLeft + the rank to blame.
__device__ inline uint64_t wait_for(const OneShotRef& ranks, int peer, uint64_t number) {
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
__device__ inline void break_group(const OneShotRef& ranks, const Operation& operation, uint64_t blame) {
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
__device__ inline void leave(const OneShotRef& ranks) {
  const int peer = static_cast<int>(threadIdx.x);
  if (peer >= ranks.size || peer == ranks.rank) return;
  const uint64_t blame = *static_cast<const volatile uint64_t*>(&ranks.state->broken);  // set once, before any block leaves
  release(ranks.arrived[peer] + blockIdx.x * kOneShotRanks + ranks.rank, blame);
}

// Tells the counterparts that this block has staged its part, and waits until they have. False when the group is broken.
__device__ inline bool meet(const OneShotRef& ranks, const Operation& operation) {
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
__device__ inline bool broken_before(const OneShotRef& ranks) {
  if (!__syncthreads_or(*static_cast<const volatile uint64_t*>(&ranks.state->broken) != 0)) return false;
  leave(ranks);
  return true;
}

// The last block counts the operation.
__device__ inline void finish(const OneShotRef& ranks, uint64_t number) {
  if (threadIdx.x != 0) return;
  // Relaxed: it only counts. Every thread has read `operations` before its block's barriers in meet, so before the last block writes it;
  // the next launch reads both fields, ordered by the stream.
  if (atomicAdd(&ranks.state->finished, 1u) + 1 < gridDim.x) return;
  ranks.state->finished = 0;
  ranks.state->operations = number;
}

}  // namespace accrete::one_shot
