#include <cblas.h>

#include <algorithm>
#include <vector>

#include "kernels/gemm/linear_paths.h"

namespace accrete {
namespace {

constexpr int64_t kSliceElements = 256 << 10;  // widened weights of a slice: 1 MB, half of a second-level cache

// The pool's threads are the threads; OpenBLAS must not start its own beneath them. Holds for the process.
void use_one_blas_thread() {
  static const bool done = [] {
    openblas_set_num_threads(1);
    return true;
  }();
  (void)done;
}

// A matrix as sgemm wants it: f32 as it lies, bf16 widened into `scratch`.
struct FloatRows {
  const float* data;
  int64_t stride;
};

FloatRows float_rows(const AnyView<2>& rows, int64_t begin, int64_t end, std::vector<float>& scratch) {
  if (rows.dtype == DType::f32) return {static_cast<const float*>(rows.data) + begin * rows.stride[0], rows.stride[0]};
  const View<const bf16, 2> from = rows.as<const bf16>();
  const int64_t width = rows.shape[1];
  if (static_cast<int64_t>(scratch.size()) < (end - begin) * width) scratch.resize((end - begin) * width);
  for (int64_t i = begin; i < end; ++i) {
    const bf16* in = from.data + i * from.stride[0];
    float* out = scratch.data() + (i - begin) * width;
    for (int64_t k = 0; k < width; ++k) out[k] = static_cast<float>(in[k]);
  }
  return {scratch.data(), width};
}

}  // namespace

void linear_blas(const Linear& op, ThreadPool& pool) {
  use_one_blas_thread();
  const int64_t rows = op.x.shape[0], depth = op.w.shape[1], outputs = op.w.shape[0];
  const View<float, 2> y = op.y.as<float>();
  thread_local std::vector<float> x_scratch;
  const FloatRows x = float_rows(op.x, 0, rows, x_scratch);
  const int64_t slice = std::clamp<int64_t>(kSliceElements / std::max<int64_t>(1, depth), 16, outputs);
  // Whole slices for each thread: 17 slices on 2 threads would leave one idle for the last.
  const int64_t rounds = (outputs + slice * pool.threads() - 1) / (slice * pool.threads());
  const int64_t parts = std::min(outputs, rounds * pool.threads());
  pool.run(parts, [&](int64_t part) {
    thread_local std::vector<float> w_scratch;  // grows to a slice once
    const int64_t begin = outputs * part / parts, end = outputs * (part + 1) / parts;
    const FloatRows w = float_rows(op.w, begin, end, w_scratch);
    cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, static_cast<int>(rows), static_cast<int>(end - begin),
                static_cast<int>(depth), 1.0f, x.data, static_cast<int>(x.stride), w.data, static_cast<int>(w.stride), 0.0f,
                y.data + begin, static_cast<int>(y.stride[0]));
  });
}

}  // namespace accrete
