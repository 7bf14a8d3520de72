#include <algorithm>
#include <cmath>

#include "kernels/norm/rms_norm.h"
#include "kernels/thread_pool.h"

namespace accrete {
namespace {

constexpr int64_t kGrainElements = 1 << 14;  // below this a fork costs more than the work

// One row: x += delta, y = x / rms(x) * weight. Eight partial sums, so that the compiler may vectorise and the rounding error
// grows with E/8 terms, not E.
template <class T, class W>
void norm_row(const RmsNorm& op, int64_t t) {
  constexpr int kLanes = 16;
  const int64_t width = op.x.shape[1];
  T* x = &op.x.as<T>()(t, 0);
  if (op.delta.data) {
    const T* delta = &op.delta.as<const T>()(t, 0);
    for (int64_t e = 0; e < width; ++e) x[e] = static_cast<T>(static_cast<float>(x[e]) + static_cast<float>(delta[e]));
  }
  float sums[kLanes] = {};
  int64_t e = 0;
  for (; e + kLanes <= width; e += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = static_cast<float>(x[e + lane]);
      sums[lane] += value * value;
    }
  }
  double sum = 0;
  for (; e < width; ++e) sum += static_cast<double>(static_cast<float>(x[e])) * static_cast<float>(x[e]);
  for (float part : sums) sum += part;
  const float scale = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(width) + op.eps));
  const W* weight = static_cast<const W*>(op.weight.data);
  T* y = &op.y.as<T>()(t, 0);
  for (int64_t i = 0; i < width; ++i) {
    y[i] = static_cast<T>(static_cast<float>(x[i]) * scale * static_cast<float>(weight[i]));
  }
}

template <class T, class W>
void norm_rows(const RmsNorm& op, ThreadPool& pool) {
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, op.x.shape[1]));
  pool.run_ranges(op.x.shape[0], grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) norm_row<T, W>(op, t);
  });
}

template <class T>
void norm_weight(const RmsNorm& op, ThreadPool& pool) {
  if (op.weight.dtype == DType::bf16) return norm_rows<T, bf16>(op, pool);
  CHECK(op.weight.dtype == DType::f32, name_of(op.weight.dtype));
  norm_rows<T, float>(op, pool);
}

}  // namespace

void rms_norm_cpu(const RmsNorm& op, Stream& stream) {
  CHECK(op.x.shape == op.y.shape, op.x.shape[0], op.x.shape[1], op.y.shape[0], op.y.shape[1]);
  CHECK(op.weight.shape[0] == op.x.shape[1], op.weight.shape[0], op.x.shape[1]);
  CHECK(op.x.stride[1] == 1 && op.y.stride[1] == 1 && op.weight.stride[0] == 1, op.x.stride[1], op.y.stride[1]);
  if (op.delta.data) CHECK(op.delta.shape == op.x.shape && op.delta.stride[1] == 1, op.delta.shape[0], op.delta.shape[1]);
  if (op.x.dtype == DType::bf16) return norm_weight<bf16>(op, *stream.pool);
  norm_weight<float>(op, *stream.pool);
}

}  // namespace accrete
