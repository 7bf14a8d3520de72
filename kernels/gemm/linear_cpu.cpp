#include <algorithm>

#include "kernels/gemm/linear.h"
#include "kernels/thread_pool.h"

namespace accrete {
namespace {

template <class X, class W>
void products(const Linear& op, ThreadPool& pool) {
  const View<const X, 2> x = op.x.as<const X>();
  const View<const W, 2> w = op.w.as<const W>();
  const View<float, 2> y = op.y.as<float>();
  const int64_t depth = w.shape[1];
  constexpr int kLanes = 16;
  pool.run_ranges(w.shape[0], 16, [&](int64_t begin, int64_t end) {
    for (int64_t n = begin; n < end; ++n) {
      const W* wn = w.data + n * w.stride[0];
      for (int64_t t = 0; t < x.shape[0]; ++t) {
        const X* xt = x.data + t * x.stride[0];
        float sums[kLanes] = {};
        int64_t k = 0;
        for (; k + kLanes <= depth; k += kLanes)
          for (int i = 0; i < kLanes; ++i) sums[i] += static_cast<float>(xt[k + i]) * static_cast<float>(wn[k + i]);
        float sum = 0;
        for (; k < depth; ++k) sum += static_cast<float>(xt[k]) * static_cast<float>(wn[k]);
        for (float part : sums) sum += part;
        y(t, n) = sum;
      }
    }
  });
}

}  // namespace

void linear_cpu(const Linear& op, Stream& stream) {
  CHECK(op.x.shape[0] == op.y.shape[0], op.x.shape[0], op.y.shape[0]);
  CHECK(op.x.shape[1] == op.w.shape[1], op.x.shape[1], op.w.shape[1]);
  CHECK(op.w.shape[0] == op.y.shape[1], op.w.shape[0], op.y.shape[1]);
  CHECK(op.x.stride[1] == 1 && op.w.stride[1] == 1 && op.y.stride[1] == 1, op.x.stride[1], op.w.stride[1], op.y.stride[1]);
  if (op.x.dtype == DType::bf16 && op.w.dtype == DType::bf16) return products<bf16, bf16>(op, *stream.pool);
  if (op.x.dtype == DType::bf16) return products<bf16, float>(op, *stream.pool);
  if (op.w.dtype == DType::bf16) return products<float, bf16>(op, *stream.pool);
  products<float, float>(op, *stream.pool);
}

}  // namespace accrete
