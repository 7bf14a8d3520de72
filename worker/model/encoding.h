// Encodings of weights in files, and their decoding to floats. Quantized ones come in blocks of 32 or 256 elements.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace accrete::worker {

enum class Encoding : uint8_t { f32, f16, bf16, q4_0, q4_1, q5_0, q5_1, q8_0, q4_k, q5_k, q6_k };

struct EncodingShape {
  const char* name;  // "Q4_1"
  int64_t block;     // elements of a block
  int64_t bytes;     // bytes of a block
};
const EncodingShape& shape_of(Encoding encoding);

// dst[blocks * block] = the floats of consecutive blocks at src, which needs no alignment.
void decode_blocks(Encoding encoding, const uint8_t* src, int64_t blocks, float* dst);

// The element conversions, vectorised.
void halves_to_floats(const uint8_t* src, int64_t count, float* dst);  // IEEE half precision
void bfloats_to_floats(const uint8_t* src, int64_t count, float* dst);
void floats_to_bfloats(const float* src, int64_t count, bf16* dst);  // round to nearest even, NaN stays NaN

// dst[count] of type f32 or bf16.
void store_floats(const float* src, int64_t count, DType dtype, void* dst);

}  // namespace accrete::worker
