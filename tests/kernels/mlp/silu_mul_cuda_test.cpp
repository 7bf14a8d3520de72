// silu_mul on a GPU, alone and between fp8 products.
#include <gtest/gtest.h>

#include <limits>

#include "kernels/mlp/silu_mul.h"
#include "tests/kernels/gemm/fp8_neighbours.h"

#if defined(ACCRETE_CUDA)

namespace accrete {
namespace {

class SiluMulOnCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto reason = CudaDevice::unavailable()) GTEST_SKIP() << *reason;
    device_ = std::make_unique<CudaDevice>();
  }
  Stream& stream() { return device_->stream(); }

  std::unique_ptr<CudaDevice> device_;
};

// __expf is within 2 + 1.173 |g| units of the last place, __fdividef within 2; the sum and the product round once, storing in bf16 once more.
// Where the quotient vanishes it was below |g| 2^-126.
template <class T>
void try_formula(const Shape& shape, float scale, Stream& stream) {
  Matrix<T> before(shape.tokens, 2 * shape.width, kGap);
  std::mt19937 random(5);
  std::normal_distribution<float> normal(0, scale);
  for (int64_t t = 0; t < shape.tokens; ++t) {
    for (int64_t f = 0; f < 2 * shape.width; ++f) before.at(t, f) = T(normal(random));
  }
  Device2D<T> gate_up(before), y(Matrix<T>(shape.tokens, shape.width, kGap));
  silu_mul_cuda({gate_up.view(), y.view()}, stream);
  const Matrix<T> found = y.read();
  for (int64_t t = 0; t < shape.tokens; ++t) {
    for (int64_t f = 0; f < shape.width; ++f) {
      const double gate = before.number(t, f), up = before.number(t, shape.width + f), exact = gate / (1 + std::exp(-gate)) * up;
      const double relative = (4 + 1.173 * std::abs(gate)) * 0x1p-23 + gamma(2) + (sizeof(T) == 2 ? kBfloatRounding : 0);
      ASSERT_NEAR(found.number(t, f), exact, relative * std::abs(exact) + std::abs(gate * up) * 0x1p-125) << "gate " << gate;
    }
  }
  expect_gaps_untouched(found);
}

TEST_F(SiluMulOnCuda, EqualsTheFormulaWithinTheBound) {
  for (const float scale : {0.1f, 1.0f, 10.0f, 60.0f}) {
    try_formula<float>({5, 77}, scale, stream());
    try_formula<bf16>({5, 77}, scale, stream());
    try_formula<bf16>({3, 1536}, scale, stream());
  }
  try_formula<bf16>({65537, 8}, 1.0f, stream());  // more rows than a grid's second dimension has
}

struct Results {
  Matrix<bf16> y;
  Matrix<fp8> y8;
  std::vector<float> scale;
};

// Numbers whose factors bring them back to about 1, and in some rows one that is not a number, or infinite, or all zeros, or all so small that
// rounding them divides.
Matrix<bf16> inputs(const Shape& shape, bool factors) {
  Matrix<bf16> sums = factors ? random_sums(shape.tokens, 2 * shape.width, 1) : random_matrix(shape.tokens, 2 * shape.width, kGap, 1);
  if (shape.tokens < 9) return sums;
  sums.at(1, 7) = bf16(std::nanf(""));
  sums.at(3, shape.width + 5) = bf16(std::numeric_limits<float>::infinity());
  for (int64_t f = 0; f < 2 * shape.width; ++f) {
    sums.at(5, f) = bf16(0.0f);
    sums.at(7, f) = bf16(static_cast<float>(sums.at(7, f)) * 1e-15f);
  }
  return sums;
}

Results apart(const Matrix<bf16>& sums, DeviceFactors* factors, Stream& stream) {
  const int64_t tokens = sums.rows, width = sums.columns / 2;
  Device2D<bf16> gate_up(sums), y(Matrix<bf16>(tokens, width, kGap));
  DeviceFp8Rows y8(tokens, width);
  if (factors) apply_scales_cuda({gate_up.view(), factors->view().rows, factors->view().columns}, stream);
  silu_mul_cuda({gate_up.view(), y.view()}, stream);
  quantize_fp8_cuda({y.view(), y8.view().values, y8.view().scale}, stream);
  return {y.read(), y8.values(), y8.scale()};
}

void try_shape(const Shape& shape, bool factors, bool with_y, Stream& stream) {
  SCOPED_TRACE(testing::Message() << "T " << shape.tokens << " F " << shape.width << " factors " << factors << " y " << with_y);
  const Matrix<bf16> sums = inputs(shape, factors);
  DeviceFactors made(shape.tokens, 2 * shape.width, 3);
  const Results wanted = apart(sums, factors ? &made : nullptr, stream);
  Device2D<bf16> gate_up(sums), y(Matrix<bf16>(shape.tokens, shape.width, kGap));
  DeviceFp8Rows y8(shape.tokens, shape.width);
  SiluMul op{gate_up.view(), {}, {}, y8.view()};
  if (factors) op.factors = made.view();
  if (with_y) op.y = y.view();
  silu_mul_cuda(op, stream);
  if (with_y) {
    ASSERT_NO_FATAL_FAILURE(expect_same(y.read(), wanted.y, "y"));
  }
  ASSERT_NO_FATAL_FAILURE(expect_same(y8.values(), wanted.y8, "y8"));
  ASSERT_EQ(y8.scale(), wanted.scale);
}

// Rows of one block to eight; fewer than run at once, a few turns of them, and so many that clusters take two rows a turn, the last with one.
TEST_F(SiluMulOnCuda, EqualsTheOpsApartBetweenProducts) {
  for (const Shape& shape : {Shape{1, 16}, {3, 80}, {16, 3584}, {301, 3600}, {9, 11008}, {37, 13824}, {1, 28672}, {71, 28672}, {211, 28672}, {9001, 48}}) {
    try_shape(shape, true, false, stream());
    try_shape(shape, false, false, stream());
  }
  for (const Shape& shape : {Shape{5, 3600}, {129, 14336}}) try_shape(shape, true, true, stream());
  try_shape({0, 64}, true, false, stream());
}

// A product's x_scale serves the reader of its y and then, in place, the next product.
TEST_F(SiluMulOnCuda, FactorsGiveWayToTheNextProducts) {
  for (const Shape& shape : {Shape{3, 11008}, {199, 28672}}) {
    const Matrix<bf16> sums = inputs(shape, true);
    DeviceFactors factors(shape.tokens, 2 * shape.width, 3), again(shape.tokens, 2 * shape.width, 3);
    const Results wanted = apart(sums, &factors, stream());
    Device2D<bf16> gate_up(sums);
    DeviceFp8Rows y8(shape.tokens, shape.width);
    silu_mul_cuda({gate_up.view(), {}, again.view(), {y8.view().values, again.rows()}}, stream());
    expect_same(y8.values(), wanted.y8, "y8");
    std::vector<float> scale(shape.tokens);
    ACCRETE_CUDA_CHECK(cudaMemcpy(scale.data(), again.rows().data, scale.size() * sizeof(float), cudaMemcpyDeviceToHost));
    EXPECT_EQ(scale, wanted.scale);
  }
}

}  // namespace
}  // namespace accrete

#endif
