#include <algorithm>
#include <cmath>

#include "kernels/cpu_isa.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/thread_pool.h"

namespace accrete {
namespace {

constexpr int64_t kGrainElements = 1 << 14;  // below this a fork costs more than the work

template <class T, class W>
struct Row {
  T* x;            // [E]
  const T* delta;  // [E] or null
  const W* weight; // [E]
  T* y;            // [E] out
  int64_t width;   // E
  float eps;
};

// x += delta, y = x / rms(x) * weight. Sixteen partial sums, so that the loop vectorises and a sum's rounding error grows with
// E / 16, not E.
template <class T, class W>
ACCRETE_LOOP void norm_loop(const Row<T, W>& row) {
  constexpr int kLanes = 16;
  T* x = row.x;
  if (row.delta) {
    for (int64_t e = 0; e < row.width; ++e) {
      x[e] = static_cast<T>(static_cast<float>(x[e]) + static_cast<float>(row.delta[e]));
    }
  }
  float sums[kLanes] = {};
  int64_t e = 0;
  for (; e + kLanes <= row.width; e += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) {
      const float value = static_cast<float>(x[e + lane]);
      sums[lane] += value * value;
    }
  }
  double sum = 0;
  for (; e < row.width; ++e) sum += static_cast<double>(static_cast<float>(x[e])) * static_cast<float>(x[e]);
  for (float part : sums) sum += part;
  const float scale = static_cast<float>(1.0 / std::sqrt(sum / static_cast<double>(row.width) + row.eps));
  for (int64_t i = 0; i < row.width; ++i) {
    row.y[i] = static_cast<T>(static_cast<float>(x[i]) * scale * static_cast<float>(row.weight[i]));
  }
}
template <class T, class W>
void norm_portable(const Row<T, W>& row) {
  norm_loop(row);
}
template <class T, class W>
ACCRETE_TARGET_AVX2 void norm_avx2(const Row<T, W>& row) {
  norm_loop(row);
}
template <class T, class W>
ACCRETE_TARGET_AVX512 void norm_avx512(const Row<T, W>& row) {
  norm_loop(row);
}

template <class T, class W>
void norm_rows(const RmsNorm& op, ThreadPool& pool) {
  const View<T, 2> x = op.x.as<T>(), y = op.y.as<T>();
  const View<const T, 2> delta = op.delta.data ? op.delta.as<const T>() : View<const T, 2>();
  const View<const W, 1> weight = op.weight.as<const W>();
  const auto norm = IsaTable(norm_portable<T, W>, norm_avx2<T, W>, norm_avx512<T, W>).best();
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, x.shape[1]));
  pool.run_ranges(op.x.shape[0], grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      norm({&x(t, 0), delta.data ? &delta(t, 0) : nullptr, weight.data, &y(t, 0), x.shape[1], op.eps});
    }
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
  CHECK(!op.delta_factors.rows.data && !op.y8.values.data);
  CHECK(op.x.shape == op.y.shape, op.x.shape[0], op.x.shape[1], op.y.shape[0], op.y.shape[1]);
  CHECK(op.weight.shape[0] == op.x.shape[1], op.weight.shape[0], op.x.shape[1]);
  CHECK(op.x.stride[1] == 1 && op.y.stride[1] == 1 && op.weight.stride[0] == 1, op.x.stride[1], op.y.stride[1]);
  if (op.delta.data) CHECK(op.delta.shape == op.x.shape && op.delta.stride[1] == 1, op.delta.shape[0], op.delta.shape[1]);
  if (op.x.dtype == DType::bf16) return norm_weight<bf16>(op, *stream.pool);
  norm_weight<float>(op, *stream.pool);
}

}  // namespace accrete
