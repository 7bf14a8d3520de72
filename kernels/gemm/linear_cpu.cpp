#include <algorithm>
#include <vector>

#include "kernels/gemm/dot.h"
#include "kernels/gemm/linear.h"
#include "kernels/thread_pool.h"

namespace accrete {
namespace {

constexpr int64_t kPartWeightBytes = 64 << 10;  // some 5 us of reading weights: less is not worth a fork
constexpr int64_t kPartsPerThread = 4;          // a thread that is held up leaves the rest to the others

void check_operands(const Linear& op) {
  CHECK(op.x.shape[0] == op.y.shape[0], op.x.shape[0], op.y.shape[0]);
  CHECK(op.x.shape[1] == op.w.shape[1], op.x.shape[1], op.w.shape[1]);
  CHECK(op.w.shape[0] == op.y.shape[1], op.w.shape[0], op.y.shape[1]);
  CHECK(op.x.stride[1] == 1 && op.w.stride[1] == 1 && op.y.stride[1] == 1, op.x.stride[1], op.w.stride[1], op.y.stride[1]);
}

// Grows to the largest call once, so that the step path does not allocate.
float* panel_scratch(int64_t size) {
  constexpr int64_t kLine = 16;  // floats in a cache line: a vector load must not straddle two
  thread_local std::vector<float> panel;
  if (static_cast<int64_t>(panel.size()) < size + kLine) panel.resize(size + kLine);
  const auto address = reinterpret_cast<uintptr_t>(panel.data());
  return panel.data() + (kLine - address / sizeof(float) % kLine) % kLine;
}

}  // namespace

void linear_cpu(const Linear& op, Stream& stream) {
  check_operands(op);
  const int64_t tokens = op.x.shape[0], depth = op.w.shape[1], outputs = op.w.shape[0];
  if (tokens == 0 || outputs == 0) return;
  ThreadPool& pool = *stream.pool;
  const DotKernels& dot = dot_kernels(cpu_isa());
  float* panel = panel_scratch(dot.panel_size(tokens, depth));
  const int64_t blocks = (tokens + kDotRows - 1) / kDotRows;
  pool.run_ranges(blocks, 4, [&](int64_t begin, int64_t end) {
    for (int64_t block = begin; block < end; ++block) dot.pack(op.x, op.w.dtype, block, panel);
  });
  const DotOperands operands{panel, op.w, op.y.as<float>()};
  const int64_t row_bytes = std::max<int64_t>(1, depth * static_cast<int64_t>(size_of(op.w.dtype)) * blocks);
  const int64_t parts = std::clamp<int64_t>(outputs * row_bytes / kPartWeightBytes, 1, pool.threads() * kPartsPerThread);
  pool.run(parts, [&](int64_t part) { dot.columns(operands, outputs * part / parts, outputs * (part + 1) / parts); });
}

}  // namespace accrete
