#include <algorithm>
#include <vector>

#include "kernels/gemm/dot.h"
#include "kernels/gemm/linear_paths.h"

namespace accrete {
namespace {

constexpr int64_t kPartBytes = 64 << 10;  // some 5 us of reading weights: less is not worth a fork
constexpr int64_t kPartsPerThread = 4;    // a thread that is held up leaves the rest to the others
constexpr int64_t kBlocksPerPack = 4;

// Grows to the largest call once, so that the step path does not allocate.
float* panel_scratch(int64_t size) {
  constexpr int64_t kLine = 16;  // floats in a cache line: a vector load must not straddle two
  thread_local std::vector<float> panel;
  if (static_cast<int64_t>(panel.size()) < size + kLine) panel.resize(size + kLine);
  const auto address = reinterpret_cast<uintptr_t>(panel.data());
  return panel.data() + (kLine - address / sizeof(float) % kLine) % kLine;
}

}  // namespace

void linear_dot(const Linear& op, ThreadPool& pool, CpuIsa isa) {
  const int64_t rows = op.x.shape[0], depth = op.w.shape[1], outputs = op.w.shape[0];
  const DotKernels& dot = dot_kernels(isa);
  float* panel = panel_scratch(dot.panel_size(rows, depth));
  const int64_t blocks = (rows + kDotRows - 1) / kDotRows;
  pool.run_ranges(blocks, kBlocksPerPack, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) dot.pack(op.x, op.w.dtype, block, panel);
  });
  const DotOperands operands{panel, op.w, op.y.as<float>()};
  const int64_t bytes = outputs * depth * static_cast<int64_t>(size_of(op.w.dtype)) * blocks;
  const int64_t most = std::min<int64_t>(outputs, pool.threads() * kPartsPerThread);
  const int64_t parts = std::clamp<int64_t>(bytes / kPartBytes, 1, most);
  pool.run(parts, [&](int64_t part) { dot.columns(operands, outputs * part / parts, outputs * (part + 1) / parts); });
}

}  // namespace accrete
