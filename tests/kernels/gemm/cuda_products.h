// What the tests of linear on CUDA share: host matrices with their copies on the device, exact sums, a product with fp8 weights
// and everything it needs, and the fixture that skips where there is no GPU.
#pragma once

#if defined(ACCRETE_CUDA)

#include <gtest/gtest.h>

#include <cmath>
#include <memory>
#include <random>
#include <vector>

#include "kernels/gemm/gemm_plans.h"
#include "kernels/gemm/linear.h"
#include "kernels/gemm/quantize_fp8.h"
#include "tests/kernels/op_devices.h"
#include "tests/kernels/random_matrix.h"

namespace accrete {

inline constexpr double kBfloatRounding = 0x1p-8;
inline constexpr int64_t kGap = 16;  // elements between rows of x and y
inline constexpr float kGuard = 12345.0f;

// Host matrix with rows further apart than they are long.
template <class T>
struct Matrix {
  int64_t rows, columns, gap;
  std::vector<T> values;

  Matrix(int64_t r, int64_t c, int64_t g) : rows(r), columns(c), gap(g), values(r * (c + g), T(kGuard)) {}
  int64_t stride() const { return columns + gap; }
  T& at(int64_t r, int64_t c) { return values[r * stride() + c]; }
  double number(int64_t r, int64_t c) const { return static_cast<float>(values[r * stride() + c]); }
};

inline Matrix<bf16> random_matrix(int64_t rows, int64_t columns, int64_t gap, unsigned seed) {
  Matrix<bf16> matrix(rows, columns, gap);
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, 1);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) matrix.at(r, c) = bf16(normal(random));
  }
  return matrix;
}

template <class T>
class Device2D {
 public:
  explicit Device2D(const Matrix<T>& host) : host_(host), memory_(host.values) {}
  View<T, 2> view() { return View<T, 2>(memory_.data(), {host_.rows, host_.columns}, {host_.stride(), 1}); }
  Matrix<T> read() {
    host_.values = memory_.read();
    return host_;
  }

 private:
  Matrix<T> host_;
  CudaDevice::Memory<T> memory_;
};

template <class T>
void expect_gaps_untouched(const Matrix<T>& y) {
  for (int64_t r = 0; r < y.rows; ++r) {
    for (int64_t c = y.columns; c < y.stride(); ++c) ASSERT_EQ(y.number(r, c), static_cast<float>(T(kGuard))) << "written between rows";
  }
}

struct Sizes {
  int64_t outputs, depth;
};
inline constexpr int64_t kTokens[] = {1, 3, 16, 17, 100, 513};

// Of the products of a row and a weight row.
struct Dot {
  double sum = 0, magnitude = 0, squares = 0;
};
template <class X, class W>
Dot dot(const Matrix<X>& x, int64_t t, const Matrix<W>& w, int64_t n) {
  Dot result;
  for (int64_t k = 0; k < x.columns; ++k) {
    const double product = x.number(t, k) * w.number(n, k);
    result.sum += product;
    result.magnitude += std::abs(product);
    result.squares += product * product;
  }
  return result;
}

// An fp8 product with everything it needs on the device.
template <class Y>
class Fp8Product {
 public:
  Fp8Product(const Matrix<bf16>& x, const Matrix<bf16>& w, Stream& stream)
      : tokens_(x.rows), outputs_(w.rows), depth_(x.columns), x_(x), w_(w), w8_(bytes(w.rows)), x8_(bytes(x.rows)),
        w_scale_(std::vector<float>(w.rows)), x_scale_(std::vector<float>(x.rows)), y_(Matrix<Y>(x.rows, w.rows, kGap)) {
    quantize_fp8_cuda({w_.view(), w8_view(), View<float, 1>(w_scale_.data(), {outputs_})}, stream);
  }

  Linear op() {
    Linear op{x_.view(), w8_view(), y_.view()};
    op.w_scale = View<const float, 1>(w_scale_.data(), {outputs_});
    op.x8 = View<fp8, 2>(reinterpret_cast<fp8*>(x8_.data()), {tokens_, depth_});
    op.x_scale = View<float, 1>(x_scale_.data(), {tokens_});
    return op;
  }
  Matrix<Y> y() { return y_.read(); }
  Matrix<fp8> x8() { return numbers(x8_, tokens_); }
  Matrix<fp8> w8() { return numbers(w8_, outputs_); }
  std::vector<float> x_scale() { return x_scale_.read(); }
  std::vector<float> w_scale() { return w_scale_.read(); }

 private:
  std::vector<uint8_t> bytes(int64_t rows) const { return std::vector<uint8_t>(rows * depth_); }
  View<fp8, 2> w8_view() { return View<fp8, 2>(reinterpret_cast<fp8*>(w8_.data()), {outputs_, depth_}); }
  Matrix<fp8> numbers(CudaDevice::Memory<uint8_t>& memory, int64_t rows) {
    Matrix<fp8> matrix(rows, depth_, 0);
    const auto read = memory.read();
    for (size_t i = 0; i < read.size(); ++i) matrix.values[i].bits = read[i];
    return matrix;
  }

  int64_t tokens_, outputs_, depth_;
  Device2D<bf16> x_, w_;
  CudaDevice::Memory<uint8_t> w8_, x8_;
  CudaDevice::Memory<float> w_scale_, x_scale_;
  Device2D<Y> y_;
};

class LinearOnCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto reason = CudaDevice::unavailable()) GTEST_SKIP() << *reason;
    device_ = std::make_unique<CudaDevice>();
    plans_ = std::make_unique<GemmPlans>();
    device_->stream().gemm = plans_.get();
  }
  Stream& stream() { return device_->stream(); }

  std::unique_ptr<CudaDevice> device_;
  std::unique_ptr<GemmPlans> plans_;
};

}  // namespace accrete

#endif
