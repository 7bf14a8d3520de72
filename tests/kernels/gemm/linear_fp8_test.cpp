// linear_cuda with e4m3 weights.
#include <gtest/gtest.h>

#include "tests/kernels/gemm/cuda_products.h"

#if defined(ACCRETE_CUDA)

namespace accrete {
namespace {

// Rows of small integers times a power of two or three halves, with 448 of that in a column that the other operand leaves zero:
// so the scale is that factor and the quantised numbers are the integers.
Matrix<bf16> scaled_integers(int64_t rows, int64_t depth, int64_t largest_at, unsigned seed) {
  Matrix<bf16> matrix(rows, depth, largest_at == 0 ? kGap : 0);
  std::mt19937 random(seed);
  for (int64_t r = 0; r < rows; ++r) {
    const float factor = std::ldexp(r % 3 == 0 ? 1.5f : 1.0f, static_cast<int>(r % 7) - 3);
    for (int64_t k = 0; k < depth; ++k) matrix.at(r, k) = bf16((static_cast<float>(random() % 7) - 3.0f) * factor);
    matrix.at(r, 1 - largest_at) = bf16(0.0f);
    matrix.at(r, largest_at) = bf16(448.0f * factor);
  }
  return matrix;
}

// Sums of integers below 2^13: exact in any order, and in the 13 fraction bits that Hopper's matrix units keep of e4m3 products.
// Every later step rounds in a known way, so the result is known to the bit.
template <class Y>
void try_integers(int64_t tokens, const Sizes& sizes, Stream& stream) {
  SCOPED_TRACE(testing::Message() << "T " << tokens << " N " << sizes.outputs << " K " << sizes.depth);
  const auto x = scaled_integers(tokens, sizes.depth, 0, 1), w = scaled_integers(sizes.outputs, sizes.depth, 1, 2);
  Fp8Product<Y> product(x, w, stream);
  linear_cuda(product.op(), stream);
  const auto y = product.y();
  const auto x8 = product.x8(), w8 = product.w8();
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t n = 0; n < sizes.outputs; ++n) {
      const float sum = static_cast<float>(Y(static_cast<float>(dot(x8, t, w8, n).sum)));
      const float x_scale = static_cast<float>(x.number(t, 0) / 448), w_scale = static_cast<float>(w.number(n, 1) / 448);
      ASSERT_EQ(y.number(t, n), static_cast<float>(Y(sum * x_scale * w_scale))) << "row " << t << " column " << n;
    }
  }
  expect_gaps_untouched(y);
}

class Fp8LinearOnCuda : public LinearOnCuda {};

constexpr Sizes kFp8Sizes[] = {{16, 16}, {48, 32}, {208, 512}, {272, 144}};

TEST_F(Fp8LinearOnCuda, OfIntegersIsExact) {
  for (int64_t tokens : kTokens) {
    for (const Sizes& sizes : kFp8Sizes) {
      try_integers<bf16>(tokens, sizes, stream());
      try_integers<float>(tokens, sizes, stream());
    }
  }
}

// The quantised operands in float64 are the reference. Hopper's matrix units align 32 products and the sum so far to the largest and
// truncate each to 13 fraction bits: 33 losses for 32 products, each at most 2^-13 of the largest, which is at most six times the root
// of the sum of squares as long as the terms' signs are random (they are here). For as many losses of random sign Hoeffding's
// inequality bounds the error by c sqrt(2 n ln(2 / p)), with p = 1e-12 for a number of outputs around 1e6.
double accumulated(const Dot& exact, int64_t depth) {
  const double losses = 33.0 / 32 * static_cast<double>(depth) + 33;
  return 0x1p-13 * 6 * std::sqrt(exact.squares) * std::sqrt(2 * losses * std::log(2 / 1e-12));
}

template <class Y>
void try_fp8(int64_t tokens, const Sizes& sizes, Stream& stream) {
  SCOPED_TRACE(testing::Message() << "T " << tokens << " N " << sizes.outputs << " K " << sizes.depth);
  Fp8Product<Y> product(random_matrix(tokens, sizes.depth, kGap, 1), random_matrix(sizes.outputs, sizes.depth, 0, 2), stream);
  linear_cuda(product.op(), stream);
  const auto y = product.y();
  const auto x8 = product.x8(), w8 = product.w8();
  const auto x_scale = product.x_scale(), w_scale = product.w_scale();
  const double rounding = (sizeof(Y) == 2 ? kBfloatRounding : 0) + 4 * kUnitRoundoff;
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t n = 0; n < sizes.outputs; ++n) {
      const Dot exact = dot(x8, t, w8, n);
      const double sums = accumulated(exact, sizes.depth);
      const double stored = sums + rounding * (std::abs(exact.sum) + sums);
      const double bound = stored + rounding * (std::abs(exact.sum) + stored);
      const double scale = static_cast<double>(x_scale[t]) * w_scale[n];
      ASSERT_NEAR(y.number(t, n), exact.sum * scale, bound * scale) << "row " << t << " column " << n;
    }
  }
}

TEST_F(Fp8LinearOnCuda, EqualsTheProductOfItsRoundedOperands) {
  for (int64_t tokens : kTokens) {
    for (const Sizes& sizes : kFp8Sizes) {
      try_fp8<bf16>(tokens, sizes, stream());
      try_fp8<float>(tokens, sizes, stream());
    }
  }
}

// A reader that scales by itself, and an x that its writer has rounded already: the same bits.
TEST_F(Fp8LinearOnCuda, ScalesAndRoundingCanBeTheNeighbours) {
  const auto x = random_matrix(5, 128, kGap, 1), w = random_matrix(48, 128, 0, 2);
  Fp8Product<float> product(x, w, stream());
  linear_cuda(product.op(), stream());
  const auto scaled = product.y();
  Linear bare = product.op();
  bare.x = bare.x8;  // of the first call, with its x_scale
  bare.x8 = {};
  bare.scaled = false;
  linear_cuda(bare, stream());
  const auto sums = product.y();
  const auto x_scale = product.x_scale(), w_scale = product.w_scale();
  for (int64_t t = 0; t < 5; ++t) {
    for (int64_t n = 0; n < 48; ++n) {
      const float sum = static_cast<float>(sums.number(t, n));
      ASSERT_EQ(static_cast<float>(scaled.number(t, n)), sum * x_scale[t] * w_scale[n]) << "row " << t << " column " << n;
    }
  }
}

// A NaN of one token stays that token's.
TEST_F(Fp8LinearOnCuda, KeepsNaNInItsRow) {
  auto x = random_matrix(3, 64, kGap, 1);
  x.at(1, 7) = bf16(std::nanf(""));
  Fp8Product<bf16> product(x, random_matrix(32, 64, 0, 2), stream());
  linear_cuda(product.op(), stream());
  const auto y = product.y();
  for (int64_t t = 0; t < 3; ++t) {
    for (int64_t n = 0; n < 32; ++n) EXPECT_EQ(std::isnan(y.number(t, n)), t == 1) << t << " " << n;
  }
}

}  // namespace
}  // namespace accrete

#endif
