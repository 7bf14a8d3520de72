// rms_norm between fp8 products.
#include <gtest/gtest.h>

#include <limits>

#include "kernels/norm/rms_norm.h"
#include "tests/kernels/gemm/fp8_neighbours.h"

#if defined(ACCRETE_CUDA)

namespace accrete {
namespace {

// What is asked of the op.
struct Wish {
  bool delta, factors, y, y8;
};

struct Results {
  Matrix<bf16> x, y;
  Matrix<fp8> y8;
  std::vector<float> scale;
};

class RmsNormFp8OnCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto reason = CudaDevice::unavailable()) GTEST_SKIP() << *reason;
    device_ = std::make_unique<CudaDevice>();
  }
  Stream& stream() { return device_->stream(); }

  std::unique_ptr<CudaDevice> device_;
};

// Rows of a usual stream, and behind each other one with a NaN in delta, one with an infinity, one of zeros, one so small that its rounding
// divides.
struct Inputs {
  explicit Inputs(const Shape& shape) : x(random_matrix(shape.tokens, shape.width, kGap, 1)), delta(random_sums(shape.tokens, shape.width, 2)), weight(shape.width) {
    for (int64_t e = 0; e < shape.width; ++e) weight[e] = 1.0f + 0.01f * static_cast<float>(e % 37);
    if (shape.tokens < 9) return;
    delta.at(1, 7) = bf16(std::nanf(""));
    x.at(3, 5) = bf16(std::numeric_limits<float>::infinity());
    for (int64_t e = 0; e < shape.width; ++e) {
      x.at(5, e) = delta.at(5, e) = bf16(0.0f);
      x.at(7, e) = bf16(static_cast<float>(x.at(7, e)) * 1e-30f);
      delta.at(7, e) = bf16(0.0f);
    }
  }

  Matrix<bf16> x, delta;
  std::vector<float> weight;
};

Results apart(const Inputs& in, const Wish& wish, DeviceFactors& factors, Stream& stream) {
  const int64_t tokens = in.x.rows, width = in.x.columns;
  Device2D<bf16> x(in.x), delta(in.delta), y(Matrix<bf16>(tokens, width, kGap));
  CudaDevice::Memory<float> weight(in.weight);
  DeviceFp8Rows y8(tokens, width);
  if (wish.factors) apply_scales_cuda({delta.view(), factors.view().rows, factors.view().columns}, stream);
  RmsNorm op{x.view(), {}, View<float, 1>(weight.data(), {width}), y.view()};
  if (wish.delta) op.delta = delta.view();
  rms_norm_cuda(op, stream);
  quantize_fp8_cuda({y.view(), y8.view().values, y8.view().scale}, stream);
  return {x.read(), y.read(), y8.values(), y8.scale()};
}

Results fused(const Inputs& in, const Wish& wish, DeviceFactors& factors, Stream& stream) {
  const int64_t tokens = in.x.rows, width = in.x.columns;
  Device2D<bf16> x(in.x), delta(in.delta), y(Matrix<bf16>(tokens, width, kGap));
  CudaDevice::Memory<float> weight(in.weight);
  DeviceFp8Rows y8(tokens, width);
  RmsNorm op{x.view(), {}, View<float, 1>(weight.data(), {width}), {}};
  if (wish.delta) op.delta = delta.view();
  if (wish.factors) op.delta_factors = factors.view();
  if (wish.y) op.y = y.view();
  if (wish.y8) op.y8 = y8.view();
  rms_norm_cuda(op, stream);
  return {x.read(), y.read(), y8.values(), y8.scale()};
}

void try_shape(const Shape& shape, const Wish& wish, Stream& stream) {
  SCOPED_TRACE(testing::Message() << "T " << shape.tokens << " E " << shape.width << " delta " << wish.delta << " factors " << wish.factors << " y "
                                  << wish.y << " y8 " << wish.y8);
  const Inputs in(shape);
  DeviceFactors factors(shape.tokens, shape.width, 3);
  const Results wanted = apart(in, wish, factors, stream), found = fused(in, wish, factors, stream);
  ASSERT_NO_FATAL_FAILURE(expect_same(found.x, wanted.x, "x"));
  if (wish.y) {
    ASSERT_NO_FATAL_FAILURE(expect_same(found.y, wanted.y, "y"));
  }
  if (!wish.y8) return;
  ASSERT_NO_FATAL_FAILURE(expect_same(found.y8, wanted.y8, "y8"));
  ASSERT_EQ(found.scale, wanted.scale);
}

// Widths around what 1, 2, 4 and 8 pieces of 2048 hold; tokens as few rows and many are served.
TEST_F(RmsNormFp8OnCuda, EqualsTheOpsApart) {
  for (const Shape& shape : {Shape{1, 16}, {3, 528}, {65, 2048}, {11, 2064}, {1, 4096}, {9, 5120}, {1, 8192}, {77, 8192}, {10, 16384}, {301, 528},
                             {271, 4096}, {299, 8192}, {265, 16384}}) {
    try_shape(shape, {.delta = true, .factors = true, .y = false, .y8 = true}, stream());
    try_shape(shape, {.delta = true, .factors = false, .y = false, .y8 = true}, stream());
  }
  for (const Shape& shape : {Shape{9, 2064}, {301, 528}, {267, 8192}}) {
    try_shape(shape, {.delta = false, .factors = false, .y = false, .y8 = true}, stream());
    try_shape(shape, {.delta = true, .factors = true, .y = true, .y8 = true}, stream());
    try_shape(shape, {.delta = true, .factors = true, .y = true, .y8 = false}, stream());
  }
  try_shape({0, 64}, {.delta = true, .factors = true, .y = false, .y8 = true}, stream());
}

// A product's x_scale serves the reader of its y and then, in place, the next product.
TEST_F(RmsNormFp8OnCuda, FactorsGiveWayToTheNextProducts) {
  const Inputs in({300, 4096});
  DeviceFactors factors(300, 4096, 3), again(300, 4096, 3);
  const Results wanted = apart(in, {true, true, true, true}, factors, stream());
  Device2D<bf16> x(in.x), delta(in.delta);
  CudaDevice::Memory<float> weight(in.weight);
  DeviceFp8Rows y8(300, 4096);
  RmsNorm op{x.view(), delta.view(), View<float, 1>(weight.data(), {4096}), {}};
  op.delta_factors = again.view();
  op.y8 = {y8.view().values, again.rows()};
  rms_norm_cuda(op, stream());
  expect_same(y8.values(), wanted.y8, "y8");
  std::vector<float> scale(300);
  ACCRETE_CUDA_CHECK(cudaMemcpy(scale.data(), again.rows().data, 300 * sizeof(float), cudaMemcpyDeviceToHost));
  EXPECT_EQ(scale, wanted.scale);
}

}  // namespace
}  // namespace accrete

#endif
