// What the tests of ops between fp8 products share: the factors of a product, its fp8 rows, and equality to the bit with the same ops apart.
#pragma once

#include "kernels/gemm/fp8_rows.h"
#include "tests/kernels/gemm/cuda_products.h"

#if defined(ACCRETE_CUDA)

namespace accrete {

struct Shape {
  int64_t tokens, width;
};

// Numbers as sums of e4m3 products are, and factors that bring them back to about 1.
inline Matrix<bf16> random_sums(int64_t rows, int64_t columns, unsigned seed) {
  Matrix<bf16> sums = random_matrix(rows, columns, kGap, seed);
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; ++c) sums.at(r, c) = bf16(static_cast<float>(sums.at(r, c)) * 4e5f);
  }
  return sums;
}

class DeviceFactors {
 public:
  DeviceFactors(int64_t rows, int64_t columns, unsigned seed) : rows_(drawn(rows, seed, 2e-3f)), columns_(drawn(columns, seed + 1, 2e-3f)), shape_{rows, columns} {}
  Factors view() { return {{rows_.data(), {shape_[0]}}, {columns_.data(), {shape_[1]}}}; }
  View<float, 1> rows() { return {rows_.data(), {shape_[0]}}; }

 private:
  static std::vector<float> drawn(int64_t count, unsigned seed, float mean) {
    std::mt19937 random(seed);
    std::uniform_real_distribution<float> uniform(mean / 2, mean * 3 / 2);
    std::vector<float> values(count);
    for (float& value : values) value = uniform(random);
    return values;
  }

  CudaDevice::Memory<float> rows_, columns_;
  std::array<int64_t, 2> shape_;
};

class DeviceFp8Rows {
 public:
  DeviceFp8Rows(int64_t rows, int64_t columns) : values_(Matrix<fp8>(rows, columns, kGap)), scale_(std::vector<float>(rows, -1.0f)), rows_(rows) {}
  Fp8Rows view() { return {values_.view(), {scale_.data(), {rows_}}}; }
  Matrix<fp8> values() { return values_.read(); }
  std::vector<float> scale() { return scale_.read(); }

 private:
  Device2D<fp8> values_;
  CudaDevice::Memory<float> scale_;
  int64_t rows_;
};

// To the bit, whichever NaN; gaps between rows included.
template <class T>
void expect_same(const Matrix<T>& found, const Matrix<T>& wanted, const char* what) {
  ASSERT_EQ(found.values.size(), wanted.values.size());
  for (size_t i = 0; i < wanted.values.size(); ++i) {
    if (found.values[i].bits == wanted.values[i].bits) continue;
    const float have = static_cast<float>(found.values[i]), want = static_cast<float>(wanted.values[i]);
    const auto stride = static_cast<size_t>(wanted.stride());
    ASSERT_TRUE(std::isnan(have) && std::isnan(want)) << what << " row " << i / stride << " column " << i % stride << ": " << have << ", not " << want;
  }
}

}  // namespace accrete

#endif
