#include "worker/model/encoding.h"

#include <cstring>

#include "kernels/check.h"
#include "worker/model/encoding_blocks.h"

namespace accrete::worker {
namespace {

constexpr EncodingShape kShapes[] = {
    {"F32", 1, 4},    {"F16", 1, 2},    {"BF16", 1, 2},     {"Q4_0", 32, 18},   {"Q4_1", 32, 20},   {"Q5_0", 32, 22},
    {"Q5_1", 32, 24}, {"Q8_0", 32, 34}, {"Q4_K", 256, 144}, {"Q5_K", 256, 176}, {"Q6_K", 256, 210},
};

}  // namespace

const EncodingShape& shape_of(Encoding encoding) {
  return kShapes[static_cast<size_t>(encoding)];
}

void halves_to_floats(const uint8_t* src, int64_t count, float* dst) {
  for (int64_t i = 0; i < count; ++i) dst[i] = half_at(src + 2 * i);
}

void bfloats_to_floats(const uint8_t* src, int64_t count, float* dst) {
  for (int64_t i = 0; i < count; ++i) {
    uint16_t bits;
    std::memcpy(&bits, src + 2 * i, 2);
    const uint32_t wide = static_cast<uint32_t>(bits) << 16;
    std::memcpy(dst + i, &wide, 4);
  }
}

void floats_to_bfloats(const float* src, int64_t count, bf16* dst) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t wide;
    std::memcpy(&wide, src + i, 4);
    const uint32_t rounded = (wide + 0x7fffu + ((wide >> 16) & 1u)) >> 16;
    const uint32_t quiet = (wide >> 16) | 0x40u;
    const bool is_nan = (wide & 0x7fffffffu) > 0x7f800000u;
    dst[i].bits = static_cast<uint16_t>(is_nan ? quiet : rounded);
  }
}

void store_floats(const float* src, int64_t count, DType dtype, void* dst) {
  CHECK(dtype == DType::f32 || dtype == DType::bf16, name_of(dtype));
  if (dtype == DType::bf16) return floats_to_bfloats(src, count, static_cast<bf16*>(dst));
  std::memcpy(dst, src, static_cast<size_t>(count) * sizeof(float));
}

void decode_blocks(Encoding encoding, const uint8_t* src, int64_t blocks, float* dst) {
  switch (encoding) {
    case Encoding::f32:
      std::memcpy(dst, src, static_cast<size_t>(blocks) * 4);
      return;
    case Encoding::f16:
      halves_to_floats(src, blocks, dst);
      return;
    case Encoding::bf16:
      bfloats_to_floats(src, blocks, dst);
      return;
    case Encoding::q4_0:
      decode_q4_0(src, blocks, dst);
      return;
    case Encoding::q4_1:
      decode_q4_1(src, blocks, dst);
      return;
    case Encoding::q5_0:
      decode_q5_0(src, blocks, dst);
      return;
    case Encoding::q5_1:
      decode_q5_1(src, blocks, dst);
      return;
    case Encoding::q8_0:
      decode_q8_0(src, blocks, dst);
      return;
    case Encoding::q4_k:
      decode_q4_k(src, blocks, dst);
      return;
    case Encoding::q5_k:
      decode_q5_k(src, blocks, dst);
      return;
    case Encoding::q6_k:
      decode_q6_k(src, blocks, dst);
      return;
  }
  CHECK(false, static_cast<int>(encoding));
}

}  // namespace accrete::worker
