#include <algorithm>
#include <vector>

#include "kernels/gemm/dot.h"
#include "kernels/gemm/linear_paths.h"

namespace accrete {
namespace {

constexpr int64_t kForkBytes = 64 << 10;  // some 5 us of reading weights: less is not worth a fork
constexpr int64_t kPartBytes = 768 << 10; // smaller parts lose to their cold start, where nothing was prefetched yet
constexpr int64_t kPartsPerThread = 4;    // of a large product: a thread that is held up leaves the rest to the others
constexpr int64_t kBlocksPerPack = 4;
constexpr int64_t kStrip = 48;            // parts are cut at multiples of it: whole tiles of 3, 4, 6, 8 and 16 columns

// Grows to the largest call once, so that the step path does not allocate.
float* panel_scratch(int64_t size) {
  constexpr int64_t kLine = 16;  // floats in a cache line: a vector load must not straddle two
  thread_local std::vector<float> panel;
  if (static_cast<int64_t>(panel.size()) < size + kLine) panel.resize(size + kLine);
  const auto address = reinterpret_cast<uintptr_t>(panel.data());
  return panel.data() + (kLine - address / sizeof(float) % kLine) % kLine;
}

// How many parts a product that reads `bytes` of weights is cut into.
int64_t parts_of(int64_t bytes, int64_t threads) {
  const int64_t worth_forking = std::clamp<int64_t>(bytes / kForkBytes, 1, threads);
  if (worth_forking < threads) return worth_forking;
  return std::clamp<int64_t>(bytes / (kPartBytes * threads), 1, kPartsPerThread) * threads;
}

}  // namespace

void linear_dot(const Linear& op, ThreadPool& pool, CpuIsa isa) {
  const int64_t rows = op.x.shape[0], depth = op.w.shape[1], outputs = op.w.shape[0];
  const DotKernels& dot = dot_kernels(isa, op.w.dtype);
  float* panel = panel_scratch(dot.panel_size(rows, depth));
  const int64_t blocks = (rows + dot.block_rows - 1) / dot.block_rows;
  pool.run_ranges(blocks, kBlocksPerPack, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) dot.pack(op.x, op.w.dtype, block, panel);
  });
  const DotOperands operands{panel, op.w, op.y.as<float>()};
  const int64_t bytes = outputs * depth * static_cast<int64_t>(size_of(op.w.dtype)) * blocks;
  const int64_t strips = (outputs + kStrip - 1) / kStrip;
  const int64_t parts = std::min(strips, parts_of(bytes, pool.threads()));
  pool.run(parts, [&](int64_t part) {
    const int64_t begin = strips * part / parts * kStrip, end = strips * (part + 1) / parts * kStrip;
    dot.columns(operands, begin, std::min(end, outputs));
  });
}

}  // namespace accrete
