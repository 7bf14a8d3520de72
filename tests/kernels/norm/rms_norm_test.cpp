#include "kernels/norm/rms_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <random>

#include "tests/kernels/op_devices.h"
#include "tests/kernels/random_matrix.h"

namespace accrete {
namespace {

template <class DeviceType, class ElementType>
struct Case {
  using Device = DeviceType;
  using Element = ElementType;
};
using Cases = testing::Types<Case<CpuDevice, float>, Case<CpuDevice, bf16>
#if defined(ACCRETE_CUDA)
                             ,
                             Case<CudaDevice, float>, Case<CudaDevice, bf16>
#endif
                             >;
struct CaseNames {
  template <class C>
  static std::string GetName(int) {
    return std::string(C::Device::kName) + "_" + name_of(dtype_of<typename C::Element>::value);
  }
};

struct Shape {
  int64_t tokens, width, gap;  // gap: elements between rows; 0 and multiples of 16 bytes take the vector path on CUDA
};

template <class C>
class RmsNormTest : public testing::Test {
 protected:
  using Device = typename C::Device;
  using T = typename C::Element;

  void SetUp() override {
    if (const auto reason = Device::unavailable()) GTEST_SKIP() << *reason;
  }

  static std::vector<T> random(size_t count, unsigned seed, float scale = 1) {
    std::mt19937 engine(seed);
    std::normal_distribution<float> normal(0, scale);
    std::vector<T> values(count);
    for (T& value : values) value = T(normal(engine));
    return values;
  }

  template <class W>
  void try_shape(const Shape& shape, bool with_delta, float eps, float scale);
};
TYPED_TEST_SUITE(RmsNormTest, Cases, CaseNames);

// The sum of squares takes at most E / 16 + 16 roundings in a chain, relative to itself since all terms are positive; half of
// that remains after the root. Root, quotient and two products add 4; storing rounds once more. eps only makes the relative
// error of mean + eps smaller. So |y - exact| <= (gamma(E / 32 + 12) + u_T) |exact|, in units of what x was rounded to.
template <class C>
template <class W>
void RmsNormTest<C>::try_shape(const Shape& shape, bool with_delta, float eps, float scale) {
  SCOPED_TRACE(testing::Message() << "T " << shape.tokens << " E " << shape.width << " gap " << shape.gap << " eps " << eps
                                  << (with_delta ? " with delta" : ""));
  const int64_t stride = shape.width + shape.gap;
  const auto x_before = random(shape.tokens * stride, 1, scale), delta = random(shape.tokens * stride, 2, scale);
  std::vector<W> weight(shape.width);
  for (int64_t e = 0; e < shape.width; ++e) weight[e] = W(1.0f + 0.01f * static_cast<float>(e % 37));
  Device device;
  typename Device::template Memory<T> x(x_before), d(delta), y(std::vector<T>(shape.tokens * stride, T(777.0f)));
  typename Device::template Memory<W> w(weight);
  RmsNorm op;
  op.x = View<T, 2>(x.data(), {shape.tokens, shape.width}, {stride, 1});
  if (with_delta) op.delta = View<T, 2>(d.data(), {shape.tokens, shape.width}, {stride, 1});
  op.weight = View<W, 1>(w.data(), {shape.width});
  op.y = View<T, 2>(y.data(), {shape.tokens, shape.width}, {stride, 1});
  op.eps = eps;
  if constexpr (std::is_same_v<Device, CpuDevice>) rms_norm_cpu(op, device.stream());
#if defined(ACCRETE_CUDA)
  else rms_norm_cuda(op, device.stream());
#endif

  const auto x_after = x.read();
  const auto result = y.read();
  const double rounding = sizeof(T) == 2 ? 0x1p-8 : kUnitRoundoff;
  const double bound = gamma(static_cast<double>(shape.width) / 32 + 12) + rounding;
  for (int64_t t = 0; t < shape.tokens; ++t) {
    double squares = 0;
    for (int64_t e = 0; e < shape.width; ++e) {
      const int64_t i = t * stride + e;
      const float sum = static_cast<float>(x_before[i]) + (with_delta ? static_cast<float>(delta[i]) : 0.0f);
      ASSERT_EQ(static_cast<float>(x_after[i]), static_cast<float>(T(sum))) << "x row " << t << " column " << e;
      squares += std::pow(static_cast<double>(static_cast<float>(x_after[i])), 2);
    }
    const double scale_of_row = 1 / std::sqrt(squares / shape.width + eps);
    for (int64_t e = 0; e < shape.width; ++e) {
      const double exact = static_cast<float>(x_after[t * stride + e]) * scale_of_row * static_cast<float>(weight[e]);
      ASSERT_NEAR(static_cast<float>(result[t * stride + e]), exact, bound * std::abs(exact)) << "row " << t << " column " << e;
    }
    for (int64_t e = shape.width; e < stride; ++e) {
      ASSERT_EQ(static_cast<float>(result[t * stride + e]), static_cast<float>(T(777.0f))) << "written between rows";
      ASSERT_EQ(static_cast<float>(x_after[t * stride + e]), static_cast<float>(x_before[t * stride + e]));
    }
  }
}

// Odd widths, the widths of real models, and rows longer than the registers of a CUDA block (1024 elements unaligned, 4096
// floats or 8192 bf16 aligned).
constexpr Shape kShapes[] = {{1, 1, 0},   {3, 7, 2},     {2, 16, 0},   {5, 576, 0},   {4, 577, 0},  {3, 576, 3},
                             {2, 576, 8}, {2, 4096, 0},  {1, 5120, 0}, {2, 8192, 16}, {1, 9000, 0}, {2, 1500, 1},
                             {64, 64, 0}, {1, 16384, 0}, {0, 64, 0}};

TYPED_TEST(RmsNormTest, EqualsTheFormulaWithFloatWeights) {
  for (const Shape& shape : kShapes) {
    for (bool with_delta : {false, true}) this->template try_shape<float>(shape, with_delta, 1e-5f, 1.0f);
  }
}

TYPED_TEST(RmsNormTest, EqualsTheFormulaWithBf16Weights) {
  for (const Shape& shape : kShapes) {
    for (bool with_delta : {false, true}) this->template try_shape<bf16>(shape, with_delta, 1e-6f, 1.0f);
  }
}

// Where the mean square is of the size of eps, eps decides the result; where it is large, it must not overflow.
TYPED_TEST(RmsNormTest, WeighsEpsAgainstTheMeanSquare) {
  for (float scale : {1e-3f, 1e-2f, 1e4f}) this->template try_shape<float>({3, 576, 0}, true, 1e-5f, scale);
}

TYPED_TEST(RmsNormTest, ZeroRowsStayZero) { this->template try_shape<float>({2, 96, 0}, false, 1e-5f, 0.0f); }

}  // namespace
}  // namespace accrete
