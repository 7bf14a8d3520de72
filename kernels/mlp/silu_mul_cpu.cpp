#include "kernels/mlp/silu_mul.h"

#include <algorithm>

#include "kernels/cpu_isa.h"
#include "kernels/exp.h"
#include "kernels/thread_pool.h"

namespace accrete {
namespace {

constexpr int64_t kGrainElements = 1 << 13;  // below this a fork costs more than the work

template <class T>
ACCRETE_LOOP void silu_mul_loop(const T* gate, const T* up, T* y, int64_t count) {
  for (int64_t f = 0; f < count; ++f) {
    const float g = static_cast<float>(gate[f]);
    y[f] = static_cast<T>(g / (1.0f + fast_exp(-g)) * static_cast<float>(up[f]));
  }
}
template <class T>
void silu_mul_portable(const T* gate, const T* up, T* y, int64_t count) {
  silu_mul_loop(gate, up, y, count);
}
template <class T>
ACCRETE_TARGET_AVX2 void silu_mul_avx2(const T* gate, const T* up, T* y, int64_t count) {
  silu_mul_loop(gate, up, y, count);
}
template <class T>
ACCRETE_TARGET_AVX512 void silu_mul_avx512(const T* gate, const T* up, T* y, int64_t count) {
  silu_mul_loop(gate, up, y, count);
}

template <class T>
void silu_mul_rows(const SiluMul& op, ThreadPool& pool) {
  const View<const T, 2> gate_up = op.gate_up.as<const T>();  // [T, 2 F_local]
  const View<T, 2> y = op.y.as<T>();                          // [T, F_local]
  const int64_t width = y.shape[1];
  const auto row = IsaTable(silu_mul_portable<T>, silu_mul_avx2<T>, silu_mul_avx512<T>).best();
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, width));
  pool.run_ranges(y.shape[0], grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) row(&gate_up(t, 0), &gate_up(t, width), &y(t, 0), width);
  });
}

}  // namespace

void silu_mul_cpu(const SiluMul& op, Stream& stream) {
  CHECK(!op.factors.rows.data && !op.y8.values.data);
  CHECK(op.gate_up.shape[0] == op.y.shape[0], op.gate_up.shape[0], op.y.shape[0]);
  CHECK(op.gate_up.shape[1] == 2 * op.y.shape[1], op.gate_up.shape[1], op.y.shape[1]);
  CHECK(op.gate_up.stride[1] == 1 && op.y.stride[1] == 1, op.gate_up.stride[1], op.y.stride[1]);
  if (op.y.dtype == DType::bf16) return silu_mul_rows<bf16>(op, *stream.pool);
  silu_mul_rows<float>(op, *stream.pool);
}

}  // namespace accrete
