#include "kernels/gemm/quantize_fp8.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "kernels/gemm/fp8_scale.h"
#include "tests/kernels/op_devices.h"

namespace accrete {
namespace {

// e4m3 as its definition has it, from nothing but the format: the values of the codes 0x00 to 0x7e.
double value_of_code(int code) {
  const int exponent = code >> 3, mantissa = code & 7;
  return exponent == 0 ? std::ldexp(mantissa, -9) : std::ldexp(8 + mantissa, exponent - 10);
}

// The code nearest to a number that is not NaN; of two equally near the even one.
int nearest_code(float value) {
  const double magnitude = std::abs(static_cast<double>(value));
  int best = 0;
  for (int code = 1; code <= 0x7e; ++code) {
    const double difference = std::abs(magnitude - value_of_code(code)) - std::abs(magnitude - value_of_code(best));
    if (difference < 0 || (difference == 0 && code % 2 == 0)) best = code;
  }
  if (std::isinf(value)) best = 0x7e;
  return best | (std::signbit(value) ? 0x80 : 0);
}

void expect_nearest(float value) { ASSERT_EQ(static_cast<int>(fp8(value).bits), nearest_code(value)) << value; }

TEST(Fp8, EveryCodeHasItsValueAndComesBack) {
  for (int code = 0; code <= 0xff; ++code) {
    fp8 number;
    number.bits = static_cast<uint8_t>(code);
    const float value = static_cast<float>(number);
    if ((code & 0x7f) == 0x7f) {
      EXPECT_TRUE(std::isnan(value));
      EXPECT_EQ(fp8(value).bits & 0x7f, 0x7f);
      continue;
    }
    EXPECT_EQ(value, (code & 0x80 ? -1 : 1) * value_of_code(code & 0x7f)) << code;
    EXPECT_EQ(static_cast<int>(fp8(value).bits), code);
  }
}

TEST(Fp8, RoundsToTheNearestAndTiesToEven) {
  for (uint32_t bits = 0; bits <= 0xffff; ++bits) {
    bf16 number;
    number.bits = static_cast<uint16_t>(bits);
    if (!std::isnan(static_cast<float>(number))) expect_nearest(static_cast<float>(number));
  }
  for (int code = 0; code < 0x7e; ++code) {  // the halves between neighbours, and the floats beside them
    const float half = static_cast<float>((value_of_code(code) + value_of_code(code + 1)) / 2);
    for (float value : {half, std::nextafter(half, 0.0f), std::nextafter(half, 1000.0f)}) {
      expect_nearest(value);
      expect_nearest(-value);
    }
  }
}

TEST(Fp8, SaturatesAndKeepsNaN) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (float value : {447.9f, 448.0f, 463.0f, 464.0f, 480.0f, 1e30f, infinity}) {
    EXPECT_EQ(fp8(value).bits, 0x7e) << value;
    EXPECT_EQ(fp8(-value).bits, 0xfe) << value;
  }
  EXPECT_EQ(fp8(std::numeric_limits<float>::quiet_NaN()).bits, 0x7f);
  EXPECT_STREQ(name_of(DType::fp8), "float8_e4m3fn");
  EXPECT_EQ(size_of(DType::fp8), sizeof(fp8));
}

#if defined(ACCRETE_CUDA)

class QuantizeFp8OnCuda : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto reason = CudaDevice::unavailable()) GTEST_SKIP() << *reason;
  }
};

constexpr int64_t kGap = 16;  // elements between rows
constexpr uint8_t kGuard = 0xab;

// Rows of every kind a model can produce: normal numbers of sizes up to the largest, subnormal ones, zeros of both signs, NaN, infinity.
std::vector<bf16> rows_of_every_kind(int64_t width, int64_t count) {
  constexpr float kScales[] = {1.0f, 0.02f, 1e4f, 1e38f, 1e-37f, 1e-39f, 0.0f, -0.0f};
  std::mt19937 random(static_cast<unsigned>(width));
  std::normal_distribution<float> normal(0, 1);
  std::vector<bf16> x(count * (width + kGap), bf16(9e9f));
  for (int64_t r = 0; r < count; ++r) {
    for (int64_t k = 0; k < width; ++k) x[r * (width + kGap) + k] = bf16(std::min(std::max(normal(random), -3.0f), 3.0f) * kScales[r % 8]);
  }
  const auto last_of = [&](int64_t r) -> bf16& { return x[r * (width + kGap) + width - 1]; };
  last_of(8) = bf16(std::numeric_limits<float>::quiet_NaN());
  last_of(9) = bf16(-std::numeric_limits<float>::infinity());
  for (int64_t k = 0; k < width; ++k) x[10 * (width + kGap) + k] = bf16(std::numeric_limits<float>::quiet_NaN());
  return x;
}

float scale_of(const bf16* row, int64_t width) {
  float largest = 0;
  for (int64_t k = 0; k < width; ++k) largest = std::fmax(largest, std::abs(static_cast<float>(row[k])));
  return largest > 0 ? largest / 448.0f : 1.0f;
}

void expect_row(const bf16* x, const uint8_t* x8, float scale, int64_t width) {
  for (int64_t k = 0; k < width; ++k) {
    const float quotient = static_cast<float>(x[k]) / scale;
    if (std::isnan(quotient)) ASSERT_EQ(x8[k] & 0x7f, 0x7f) << k;
    else ASSERT_EQ(static_cast<int>(x8[k]), static_cast<int>(fp8(quotient).bits)) << "column " << k << ": " << quotient;
  }
  for (int64_t k = width; k < width + kGap; ++k) ASSERT_EQ(x8[k], kGuard) << "written between rows";
}

struct Quantised {
  std::vector<uint8_t> x8;
  std::vector<float> scale;
};
Quantised quantise(void (*op)(const QuantizeFp8&, Stream&), const std::vector<bf16>& x, int64_t count, int64_t width) {
  CudaDevice device;
  CudaDevice::Memory<bf16> x_there(x);
  CudaDevice::Memory<uint8_t> x8_there(std::vector<uint8_t>(count * (width + kGap), kGuard));
  CudaDevice::Memory<float> scale_there(std::vector<float>(count, -1.0f));
  op({View<const bf16, 2>(x_there.data(), {count, width}, {width + kGap, 1}),
      View<fp8, 2>(reinterpret_cast<fp8*>(x8_there.data()), {count, width}, {width + kGap, 1}), View<float, 1>(scale_there.data(), {count})},
     device.stream());
  return {x8_there.read(), scale_there.read()};
}

constexpr int64_t kCount = 19;
// Around what 1, 2, 4 and 8 chunks of 4096 hold, and past that.
constexpr int64_t kWidths[] = {16, 80, 576, 4096, 4112, 8192, 11008, 16400, 32768, 33024};

TEST_F(QuantizeFp8OnCuda, EqualsTheFormulaBitForBit) {
  for (int64_t width : kWidths) {
    const auto x = rows_of_every_kind(width, kCount);
    const Quantised found = quantise(quantize_fp8_cuda, x, kCount, width);
    for (int64_t r = 0; r < kCount; ++r) {
      SCOPED_TRACE(testing::Message() << "K " << width << " row " << r);
      const bf16* row = &x[r * (width + kGap)];
      ASSERT_EQ(found.scale[r], scale_of(row, width));
      ASSERT_NO_FATAL_FAILURE(expect_row(row, &found.x8[r * (width + kGap)], found.scale[r], width));
    }
  }
}

// The row's error in units of its usual scale; NaN when the row has no number for it.
double squared_error(const bf16* x, float usual, float step, int64_t width) {
  double sum = 0;
  for (int64_t k = 0; k < width; ++k) {
    const double wanted = static_cast<double>(static_cast<float>(x[k])) / usual;
    const float quotient = static_cast<float>(x[k]) / (usual * step);
    const double error = wanted - static_cast<double>(static_cast<float>(fp8(quotient))) * step;
    sum += error * error;
  }
  return sum;
}

TEST_F(QuantizeFp8OnCuda, WeightsTakeTheScaleOfLeastError) {
  for (int64_t width : kWidths) {
    const auto x = rows_of_every_kind(width, kCount);
    const Quantised found = quantise(quantize_weights_fp8_cuda, x, kCount, width);
    for (int64_t r = 0; r < kCount; ++r) {
      SCOPED_TRACE(testing::Message() << "K " << width << " row " << r);
      const bf16* row = &x[r * (width + kGap)];
      const float usual = scale_of(row, width);
      ASSERT_NO_FATAL_FAILURE(expect_row(row, &found.x8[r * (width + kGap)], found.scale[r], width));
      int chosen = 0;
      while (chosen < kScaleSteps && usual * scale_step(chosen) != found.scale[r]) ++chosen;
      ASSERT_LT(chosen, kScaleSteps) << found.scale[r] / usual;
      const double usual_error = squared_error(row, usual, 1, width);
      if (!(usual_error > 0)) {
        ASSERT_EQ(chosen, 0);
        continue;
      }
      const double error = squared_error(row, usual, scale_step(chosen), width);
      for (int i = 0; i < kScaleSteps; ++i) ASSERT_LE(error, squared_error(row, usual, scale_step(i), width) * (1 + 1e-4)) << i;
    }
  }
}

template <class T>
void try_scales(int64_t tokens, int64_t outputs) {
  SCOPED_TRACE(testing::Message() << "T " << tokens << " N " << outputs);
  std::mt19937 random(7);
  std::normal_distribution<float> normal(0, 1);
  const int64_t stride = outputs + kGap;
  std::vector<T> before(tokens * stride);
  std::vector<float> rows(tokens), columns(outputs);
  for (T& value : before) value = T(normal(random) * 1e4f);
  for (float& value : rows) value = std::abs(normal(random)) * 0.01f;
  for (float& value : columns) value = std::abs(normal(random)) * 0.001f;
  CudaDevice device;
  CudaDevice::Memory<T> y(before);
  CudaDevice::Memory<float> rows_there(rows), columns_there(columns);
  apply_scales_cuda({View<T, 2>(y.data(), {tokens, outputs}, {stride, 1}), View<const float, 1>(rows_there.data(), {tokens}),
                     View<const float, 1>(columns_there.data(), {outputs})},
                    device.stream());
  const auto after = y.read();
  for (int64_t i = 0; i < tokens * stride; ++i) {
    const int64_t t = i / stride, n = i % stride;
    const T expected = n < outputs ? T(static_cast<float>(before[i]) * rows[t] * columns[n]) : before[i];
    ASSERT_EQ(static_cast<float>(after[i]), static_cast<float>(expected)) << "row " << t << " column " << n;
  }
}

TEST_F(QuantizeFp8OnCuda, AppliesScalesBitForBit) {
  for (int64_t outputs : {16, 1024, 2048, 2064, 12288}) {
    try_scales<bf16>(5, outputs);
    try_scales<float>(5, outputs);
  }
  try_scales<bf16>(0, 16);
}

#endif

}  // namespace
}  // namespace accrete
