// Element types of tensors, on host and device.
#pragma once

#include <bit>
#include <cstddef>
#include <cstdint>

#if defined(__CUDACC__)
#define ACCRETE_HD __host__ __device__
#else
#define ACCRETE_HD
#endif

namespace accrete {

enum class DType : uint8_t { f32, bf16, f16, i32, fp8 };

constexpr size_t size_of(DType type) {
  if (type == DType::fp8) return 1;
  return type == DType::f32 || type == DType::i32 ? 4 : 2;
}
constexpr const char* name_of(DType type) {
  switch (type) {
    case DType::f32: return "float32";
    case DType::bf16: return "bfloat16";
    case DType::f16: return "float16";
    case DType::i32: return "int32";
    case DType::fp8: return "float8_e4m3fn";
  }
  return "?";
}

// bfloat16 as storage: the upper half of an IEEE float. Bit-compatible with __nv_bfloat16.
struct bf16 {
  uint16_t bits = 0;

  bf16() = default;
  ACCRETE_HD explicit bf16(float value) : bits(round(value)) {}
  ACCRETE_HD explicit operator float() const {
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    return __builtin_bit_cast(float, wide);
  }

 private:
  // Round to nearest even; NaN stays NaN (quiet).
  ACCRETE_HD static uint16_t round(float value) {
    const uint32_t wide = __builtin_bit_cast(uint32_t, value);
    if ((wide & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>((wide >> 16) | 0x40u);
    return static_cast<uint16_t>((wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16);
  }
};

// e4m3 as storage: sign, 4 bits of exponent (bias 7), 3 of mantissa; no infinity, largest value 448, both codes 0x7f NaN.
// Bit-compatible with __nv_fp8_e4m3.
struct fp8 {
  static constexpr float kLargest = 448.0f;
  uint8_t bits = 0;

  fp8() = default;
  ACCRETE_HD explicit fp8(float value) : bits(round(value)) {}
  ACCRETE_HD explicit operator float() const {
    const int exponent = bits >> 3 & 15, mantissa = bits & 7;
    float magnitude = static_cast<float>(mantissa) * 0x1p-9f;  // subnormal
    if (exponent > 0) magnitude = __builtin_bit_cast(float, (static_cast<uint32_t>(exponent) + 120u) << 23 | static_cast<uint32_t>(mantissa) << 20);
    if ((bits & 0x7fu) == 0x7fu) magnitude = __builtin_bit_cast(float, 0x7fc00000u);
    return bits & 0x80u ? -magnitude : magnitude;
  }

 private:
  // Round to nearest even; what is too large, infinity too, becomes +-448; NaN becomes 0x7f. As cvt.rn.satfinite does.
  ACCRETE_HD static uint8_t round(float value) {
    const uint32_t wide = __builtin_bit_cast(uint32_t, value), magnitude = wide & 0x7fffffffu;
    const uint32_t sign = wide >> 31 << 7;
    if (magnitude > 0x7f800000u) return 0x7fu;
    if (magnitude >= __builtin_bit_cast(uint32_t, kLargest)) return static_cast<uint8_t>(sign | 0x7eu);
    if (magnitude < __builtin_bit_cast(uint32_t, 0x1p-6f)) {  // beside 2^14 a float's last bit is 2^-9, e4m3's smallest step
      const float steps = __builtin_bit_cast(float, magnitude) + 0x1p14f;
      return static_cast<uint8_t>(sign | (__builtin_bit_cast(uint32_t, steps) & 0xfu));
    }
    return static_cast<uint8_t>(sign | (((magnitude + 0x7ffffu + (magnitude >> 20 & 1u)) >> 20) - (120u << 3)));
  }
};

template <class T> struct dtype_of;
template <> struct dtype_of<float> { static constexpr DType value = DType::f32; };
template <> struct dtype_of<bf16> { static constexpr DType value = DType::bf16; };
template <> struct dtype_of<fp8> { static constexpr DType value = DType::fp8; };
template <> struct dtype_of<int32_t> { static constexpr DType value = DType::i32; };

}  // namespace accrete
