#include "kernels/mlp/silu_mul.h"

#include <algorithm>
#include <cmath>

#include "kernels/thread_pool.h"

namespace accrete {
namespace {

constexpr int64_t kGrainElements = 1 << 13;  // below this a fork costs more than the work

template <class T>
void silu_mul_rows(const SiluMul& op, ThreadPool& pool) {
  const View<const T, 2> gate_up = op.gate_up.as<const T>();  // [T, 2 F_local]
  const View<T, 2> y = op.y.as<T>();                          // [T, F_local]
  const int64_t width = y.shape[1];
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, width));
  pool.run_ranges(y.shape[0], grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const T* gate = &gate_up(t, 0);
      const T* up = gate + width;
      T* out = &y(t, 0);
      for (int64_t f = 0; f < width; ++f) {
        const float g = static_cast<float>(gate[f]);
        out[f] = static_cast<T>(g / (1.0f + std::exp(-g)) * static_cast<float>(up[f]));
      }
    }
  });
}

}  // namespace

void silu_mul_cpu(const SiluMul& op, Stream& stream) {
  CHECK(op.gate_up.shape[0] == op.y.shape[0], op.gate_up.shape[0], op.y.shape[0]);
  CHECK(op.gate_up.shape[1] == 2 * op.y.shape[1], op.gate_up.shape[1], op.y.shape[1]);
  CHECK(op.gate_up.stride[1] == 1 && op.y.stride[1] == 1, op.gate_up.stride[1], op.y.stride[1]);
  if (op.y.dtype == DType::bf16) return silu_mul_rows<bf16>(op, *stream.pool);
  silu_mul_rows<float>(op, *stream.pool);
}

}  // namespace accrete
