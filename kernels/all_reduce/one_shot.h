// The sum over ranks in one kernel a rank, for the small tensors of a decode step. Every rank stages its part in memory that the others
// have mapped (parallel/one_shot_group.h makes and owns it), then reads all parts and adds them in rank order in float32: all ranks hold
// the same bits.
//   one_shot_sum:   values = sum_r values_r                                        rounded once
//                   with factors, (values_r rows_r) columns_r, rounded, stands for values_r: products of fp8 as they come (gemm/fp8_rows.h)
//   one_shot_norm:  x[t] += sum_r delta_r[t], rounded once; y[t] = RMSNorm(x[t])   as in norm/rms_norm.h
// All ranks launch the same operations of the same shapes in the same order; each launch is one operation, or several where it does not
// fit the staging memory. Launches may be captured into graphs: what number an operation has is counted on the device.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

#include "kernels/gemm/fp8_rows.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

constexpr int kOneShotRanks = 8;
// A rank's most blocks, each of which waits on the device for its counterparts. A block of the norm may fill a multiprocessor (1024 threads
// with up to 64 registers), and all blocks have to be resident together: 128 of an H100's 132 places, fewer on a smaller GPU, where a rank has one to itself; where
// ranks share one, 4 x 32, which leaves room for what these ranks still compute: a product that wants most of a multiprocessor's shared
// memory finds none where a block that took little is waiting.
constexpr int kOneShotBlocks = 128;
constexpr int kOneShotSharedBlocks = 32;
constexpr int kOneShotRanksOnGpu = 4;
constexpr size_t kOneShotAlignment = 16;  // of staging memory and its capacity

// A flag from this value on is no operation's number but says: the sender waits no more, and rank (flag - kOneShotLeft) is to blame.
constexpr uint64_t kOneShotLeft = ~uint64_t{0} - (kOneShotRanks - 1);

// A rank's own, in its device's memory, zero at first. Kernels of one stream write it, one after another.
struct OneShotState {
  uint64_t operations;  // done so far
  uint64_t broken;      // 0: fine; else kOneShotLeft + the rank to blame, for good
  uint32_t finished;    // blocks of the launch under way
};

enum class OneShotKind : uint32_t { sum, norm };

// What went wrong first, in pinned host memory, zero at first: the host reads it while kernels run.
struct OneShotReport {
  uint32_t broken;     // 1: the fields below are there. Written last (release, system scope)
  uint32_t stop;       // the host's to write: whoever waits on the device gives up
  uint64_t operation;  // from 1
  uint64_t bytes;      // that it staged on this rank
  int32_t blamed;      // the rank that did not come or said that it left; the own one: told to stop, or given up by the others
  OneShotKind kind;
};

// What a rank's kernels know of the group; passed by value.
struct OneShotRef {
  int rank = 0;
  int size = 0;
  size_t capacity = 0;                          // bytes of one operation; a multiple of kOneShotAlignment
  int blocks = kOneShotSharedBlocks;            // of a launch at most, the same on all ranks: up to kOneShotBlocks
  std::byte* staged[kOneShotRanks] = {};        // rank r's [2][capacity]: operations of odd and even number take turns
  uint64_t* arrived[kOneShotRanks] = {};        // rank r's [kOneShotBlocks][kOneShotRanks], zero at first: the last operation whose part
                                                // this block of that rank has staged
  OneShotState* state = nullptr;
  OneShotReport* report = nullptr;
  uint64_t patience_ns = 0;                     // how long a kernel waits for another rank before it breaks the group
};
constexpr size_t kOneShotFlagBytes = kOneShotBlocks * kOneShotRanks * sizeof(uint64_t);

// A rank's part of a sum.
struct OneShotSum {
  AnyView<1> values;  // [n] in place, contiguous, float32 or bfloat16
  Factors factors;    // this rank's, for values as [T, E] with E whole pieces of 16 bytes; rows.data == nullptr: none, on any rank
};

// Does not touch the values when the group is broken.
void one_shot_sum_cuda(const OneShotSum& op, const OneShotRef& ranks, Stream& stream);
// op.delta is this rank's part and must be there. x and y are undefined when the group is broken.
void one_shot_norm_cuda(const RmsNorm& op, const OneShotRef& ranks, Stream& stream);
// Loads the kernels for a group of so many. Before the first launch in a process with several ranks: loading one may wait for those that run.
void one_shot_load_cuda(int ranks);

// The references: entry r is rank r's operation, all in one process.
void one_shot_sum_cpu(std::span<const OneShotSum> ops, Stream& stream);
void one_shot_norm_cpu(std::span<const RmsNorm> ops, Stream& stream);

}  // namespace accrete
