#include "kernels/gemm/linear_paths.h"

namespace accrete {
namespace {

// With AVX-512 the own loops are as fast as OpenBLAS at any number of rows, with AMX faster (tests/bench, linear_path), and
// they keep a row's result the same whether its token comes in a prompt or alone. With fewer registers sgemm wins from here on.
constexpr int64_t kBlasRows = 48;

bool use_blas(int64_t rows) { return rows >= kBlasRows && cpu_isa() != CpuIsa::avx512; }

void check_operands(const Linear& op) {
  CHECK(op.x.shape[0] == op.y.shape[0], op.x.shape[0], op.y.shape[0]);
  CHECK(op.x.shape[1] == op.w.shape[1], op.x.shape[1], op.w.shape[1]);
  CHECK(op.w.shape[0] == op.y.shape[1], op.w.shape[0], op.y.shape[1]);
  CHECK(op.x.stride[1] == 1 && op.w.stride[1] == 1 && op.y.stride[1] == 1, op.x.stride[1], op.w.stride[1], op.y.stride[1]);
}

}  // namespace

void linear_cpu(const Linear& op, Stream& stream) {
  check_operands(op);
  if (op.y.shape[0] == 0 || op.y.shape[1] == 0) return;
  if (use_blas(op.x.shape[0])) return linear_blas(op, *stream.pool);
  linear_dot(op, *stream.pool, cpu_matrix_isa());
}

}  // namespace accrete
