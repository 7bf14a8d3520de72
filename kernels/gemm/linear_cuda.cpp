#include "kernels/gemm/gemm_plans.h"
#include "kernels/gemm/linear.h"
#include "kernels/gemm/quantize_fp8.h"

namespace accrete {
namespace {

void check_fp8(const Linear& op) {
  const int64_t tokens = op.x.shape[0];
  CHECK(op.x.dtype == DType::bf16 || op.x.dtype == DType::fp8, name_of(op.x.dtype));
  CHECK(op.w_scale.data && op.w_scale.shape[0] == op.w.shape[0] && op.w_scale.stride[0] == 1, op.w_scale.shape[0], op.w.shape[0]);
  CHECK(op.x_scale.shape[0] == tokens && op.x_scale.stride[0] == 1, op.x_scale.shape[0], tokens);
  if (op.x.dtype == DType::fp8) return;
  CHECK(op.x8.shape == op.x.shape && op.x8.stride[0] == op.x.shape[1], op.x8.shape[0], op.x8.shape[1], op.x8.stride[0], tokens);
}

}  // namespace

void linear_cuda(const Linear& op, Stream& stream) {
  const bool fp8_weights = op.w.dtype == DType::fp8;
  if (fp8_weights) check_fp8(op);
  const bool rounds = fp8_weights && op.x.dtype == DType::bf16;
  const GemmOperands product{rounds ? AnyView<2>(op.x8) : op.x, op.w, op.y};
  check_gemm(product);
  CHECK(stream.gemm);
  if (op.x.shape[0] == 0) return;
  if (rounds) quantize_fp8_cuda({op.x.as<const bf16>(), op.x8, op.x_scale}, stream);
  stream.gemm->multiply(product, stream);
  if (fp8_weights && op.scaled) apply_scales_cuda({op.y, op.x_scale, op.w_scale}, stream);
}

}  // namespace accrete
