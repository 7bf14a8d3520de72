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

enum class DType : uint8_t { f32, bf16, f16, i32 };

constexpr size_t size_of(DType type) { return type == DType::f32 || type == DType::i32 ? 4 : 2; }
constexpr const char* name_of(DType type) {
  switch (type) {
    case DType::f32: return "float32";
    case DType::bf16: return "bfloat16";
    case DType::f16: return "float16";
    case DType::i32: return "int32";
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

template <class T> struct dtype_of;
template <> struct dtype_of<float> { static constexpr DType value = DType::f32; };
template <> struct dtype_of<bf16> { static constexpr DType value = DType::bf16; };
template <> struct dtype_of<int32_t> { static constexpr DType value = DType::i32; };

}  // namespace accrete
