// The random weights of --load-format dummy: a hash of (tensor, row, column), so that any shard on any device has the same. Sums of four
// bytes, about normal with deviation 0.02.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"
#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

ACCRETE_HD inline uint64_t mix64(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Key of a row of the tensor with key `tensor`.
ACCRETE_HD inline uint64_t dummy_row_key(uint64_t tensor, int64_t row) { return mix64(tensor + static_cast<uint64_t>(row)); }

// 32-bit lanes only, so that loops over columns vectorise.
ACCRETE_HD inline float dummy_value(uint64_t row_key, uint32_t column) {
  const auto low = static_cast<uint32_t>(row_key), high = static_cast<uint32_t>(row_key >> 32);
  // Four bytes in 0..255 add up to 510 on average, with deviation sqrt(4 * (256^2 - 1) / 12).
  constexpr auto kScale = static_cast<float>(0.02 / 147.79986);
  uint32_t x = column * 0x9e3779b1u + low;
  x = (x ^ (x >> 16)) * 0x7feb352du;
  x = ((x ^ (x >> 15)) + high) * 0x846ca68bu;
  x ^= x >> 16;
  const uint32_t pairs = (x & 0x00ff00ffu) + ((x >> 8) & 0x00ff00ffu);
  return static_cast<float>(static_cast<int32_t>((pairs & 0xffffu) + (pairs >> 16)) - 510) * kScale;
}

// y[i][j] = value of (row_begin + i, column_begin + j).
struct DummyFill {
  uint64_t tensor = 0;
  int64_t row_begin = 0, column_begin = 0;
  View<bf16, 2> y;  // rows contiguous
};
void dummy_fill_cuda(const DummyFill& op, Stream& stream);

}  // namespace accrete
