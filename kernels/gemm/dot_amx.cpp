// Dot kernels for AMX with bf16 weights, in fp32 precision: an activation is the exact sum of three bf16 numbers (its 24
// significand bits cut into three times eight), so three tile products give the fp32 product of it and a bf16 weight, summed
// in fp32. Three passes of the matrix unit are still faster than one of the vector units. (The unit flushes parts and sums
// below 1.2e-38 to zero.)
//
// A tile product is C [16 outputs][W tokens] += A [16 outputs][32 depths] B [16 pairs of depths][W tokens][2]. A is a piece
// of the weights as they are stored. B is the panel: [chunk of 32 depths][part][16 pairs][W tokens][2] for a block of tokens,
// W = 16, or for a call of fewer tokens the next power of two, so that a small panel stays in the first-level cache. Columns
// of absent tokens are zero. Each C element is one chain over chunks and parts, whatever its tile's neighbours and width, so
// results do not depend on them.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>
#include <cstring>

#include "kernels/gemm/dot.h"

// GCC 12's own intrinsics start from deliberately undefined registers and warn about it.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("amx-tile,amx-bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

namespace accrete {
namespace {

constexpr int64_t kTile = 16;         // rows of a tile: outputs, pairs of depths; and tokens
constexpr int64_t kDepth = 32;        // depths of a tile of bf16
constexpr int64_t kParts = 3;         // bf16 parts of an activation
constexpr int64_t kOutputTiles = 4;   // C tiles in flight: more than a product's latency takes
constexpr int64_t kTileBytes = 1024;

// Tiles 0-3: sums; 4-6: the parts of the activations; 7: weights.
struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0;
  uint8_t reserved[14] = {};
  uint16_t row_bytes[16] = {};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};

  explicit TileConfig(int64_t width) {
    for (int tile = 0; tile < 7; ++tile) row_bytes[tile] = static_cast<uint16_t>(4 * width);
    row_bytes[7] = 64;
  }
};

// W: tokens of a block in a call of `rows` tokens.
int64_t block_width(int64_t rows) {
  int64_t width = 1;
  while (width < kTile && width < rows) width *= 2;
  return width;
}
// Bytes of a part of a chunk in the panel.
int64_t part_bytes(int64_t width) { return kTile * width * 4; }

int64_t chunks_of(int64_t depth) { return (depth + kDepth - 1) / kDepth; }
int64_t panel_size(int64_t rows, int64_t depth) {
  const int64_t blocks = (rows + kTile - 1) / kTile;
  return blocks * chunks_of(depth) * kParts * part_bytes(block_width(rows)) / static_cast<int64_t>(sizeof(float));
}

// Sixteen rows of sixteen words become columns.
inline void transpose(__m512i (&row)[kTile]) {
  __m512i pair[kTile], quad[kTile];
  for (int i = 0; i < kTile; i += 2) {
    pair[i] = _mm512_unpacklo_epi32(row[i], row[i + 1]);
    pair[i + 1] = _mm512_unpackhi_epi32(row[i], row[i + 1]);
  }
  for (int i = 0; i < kTile; i += 4) {
    quad[i] = _mm512_unpacklo_epi64(pair[i], pair[i + 2]);
    quad[i + 1] = _mm512_unpackhi_epi64(pair[i], pair[i + 2]);
    quad[i + 2] = _mm512_unpacklo_epi64(pair[i + 1], pair[i + 3]);
    quad[i + 3] = _mm512_unpackhi_epi64(pair[i + 1], pair[i + 3]);
  }
  for (int i = 0; i < 4; ++i) {
    const __m512i low_even = _mm512_shuffle_i32x4(quad[i], quad[i + 4], 0x88);
    const __m512i low_odd = _mm512_shuffle_i32x4(quad[i], quad[i + 4], 0xdd);
    const __m512i high_even = _mm512_shuffle_i32x4(quad[i + 8], quad[i + 12], 0x88);
    const __m512i high_odd = _mm512_shuffle_i32x4(quad[i + 8], quad[i + 12], 0xdd);
    row[i] = _mm512_shuffle_i32x4(low_even, high_even, 0x88);
    row[i + 4] = _mm512_shuffle_i32x4(low_odd, high_odd, 0x88);
    row[i + 8] = _mm512_shuffle_i32x4(low_even, high_even, 0xdd);
    row[i + 12] = _mm512_shuffle_i32x4(low_odd, high_odd, 0xdd);
  }
}

// The upper halves of 16 floats, adjacent ones as one word.
inline __m256i upper_pairs(__m512i values) {
  const __m512i even = _mm512_and_si512(_mm512_srli_epi64(values, 16), _mm512_set1_epi64(0xffff));
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi64(values, 32), _mm512_set1_epi64(0xffff0000));
  return _mm512_cvtepi64_epi32(_mm512_or_si512(even, odd));
}

// Cuts off the upper eight significand bits of 16 floats: returns the floats of those bits and leaves the rest, exactly.
// Infinity and NaN leave nothing.
inline __m512i cut(__m512& rest) {
  const __m512i bits = _mm512_castps_si512(rest);
  const __m512i upper = _mm512_and_si512(bits, _mm512_set1_epi32(static_cast<int>(0xffff0000u)));
  const __mmask16 finite = _mm512_cmplt_epi32_mask(_mm512_and_si512(bits, _mm512_set1_epi32(0x7fffffff)),
                                                   _mm512_set1_epi32(0x7f800000));
  rest = _mm512_maskz_sub_ps(finite, rest, _mm512_castsi512_ps(upper));
  return upper;
}

// `count` floats of a row from `from`, the others zero. A NaN is made one whose upper half is a NaN too.
template <class X>
__m512 load_some(const X* from, int64_t count) {
  const auto mask = static_cast<__mmask16>(count >= kTile ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
  __m512 values;
  if constexpr (sizeof(X) == 2) {
    const __m256i halves = _mm256_maskz_loadu_epi16(mask, from);
    values = _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16));
  } else {
    values = _mm512_maskz_loadu_ps(mask, from);
  }
  const __mmask16 nan = _mm512_cmp_ps_mask(values, values, _CMP_UNORD_Q);
  return _mm512_mask_mov_ps(values, nan, _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
}

// Words [token][16 pairs] as [16 pairs][width tokens].
inline void store_part(__m512i (&words)[kTile], int64_t width, char* to) {
  if (width == 1) return _mm512_storeu_si512(to, words[0]);
  transpose(words);
  const auto mask = static_cast<__mmask16>((1 << width) - 1);
  for (int64_t p = 0; p < kTile; ++p) _mm512_mask_storeu_epi32(to + p * width * 4, mask, words[p]);
}

template <class X>
void pack_block(const View<const X, 2>& x, int64_t block, float* panel) {
  const int64_t first = block * kTile, depth = x.shape[1];
  const int64_t rows = std::min(kTile, x.shape[0] - first), width = block_width(x.shape[0]);
  for (int64_t chunk = 0; chunk < chunks_of(depth); ++chunk) {
    __m512i part[kParts][kTile] = {};
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t k = chunk * kDepth;
      const X* from = x.data + (first + r) * x.stride[0] + k;
      __m512 low = load_some(from, depth - k), high = load_some(from + kTile, depth - k - kTile);
      for (auto& words : part) {
        const __m256i low_pairs = upper_pairs(cut(low)), high_pairs = upper_pairs(cut(high));
        words[r] = _mm512_inserti64x4(_mm512_castsi256_si512(low_pairs), high_pairs, 1);
      }
    }
    char* to = reinterpret_cast<char*>(panel) + (block * chunks_of(depth) + chunk) * kParts * part_bytes(width);
    for (auto& words : part) {
      store_part(words, width, to);
      to += part_bytes(width);
    }
  }
}

void pack(const AnyView<2>& x, DType w, int64_t block, float* panel) {
  CHECK(w == DType::bf16, name_of(w));
  if (x.dtype == DType::bf16) return pack_block(x.as<const bf16>(), block, panel);
  pack_block(x.as<const float>(), block, panel);
}

// A piece of the weights as a tile: where it lies, or a copy padded with zeros where the matrix ends inside it.
struct WeightTile {
  const void* data;
  int64_t stride;  // bytes
};

class WeightTiles {
 public:
  WeightTiles(const View<const bf16, 2>& w, int64_t first, int64_t end) : w_(w), first_(first), end_(end) {}

  WeightTile at(int64_t tile, int64_t chunk) {
    const int64_t n = first_ + tile * kTile, k = chunk * kDepth;
    const bf16* from = w_.data + n * w_.stride[0] + k;
    if (n + kTile <= end_ && k + kDepth <= w_.shape[1]) {
      return {from, w_.stride[0] * static_cast<int64_t>(sizeof(bf16))};
    }
    bf16* copy = copies_[tile];
    std::memset(static_cast<void*>(copy), 0, kTileBytes);
    const int64_t depths = std::min(kDepth, w_.shape[1] - k);
    for (int64_t i = 0; n + i < std::min(n + kTile, end_); ++i) {
      std::memcpy(static_cast<void*>(copy + i * kDepth), from + i * w_.stride[0], depths * sizeof(bf16));
    }
    return {copy, kDepth * static_cast<int64_t>(sizeof(bf16))};
  }

  // Sixteen lines of the next kOutputTiles' strip of weights into the second-level cache, front to back as memory likes it,
  // whatever the order in which tiles are read. By way of an integer: past the end of the weights no pointer may point, but a
  // prefetch may ask.
  void prefetch(int64_t tile, int64_t chunk) const {
    constexpr int64_t kLine = 64;
    const bf16* strip = w_.data + first_ * w_.stride[0];
    const auto next = reinterpret_cast<uintptr_t>(strip) + kOutputTiles * kTile * w_.stride[0] * sizeof(bf16);
    const auto at = next + (chunk * kOutputTiles + tile) * kTile * kLine;
    for (int64_t i = 0; i < kTile; ++i) _mm_prefetch(reinterpret_cast<const char*>(at + i * kLine), _MM_HINT_T1);
  }

 private:
  View<const bf16, 2> w_;
  int64_t first_, end_;
  alignas(64) bf16 copies_[kOutputTiles][kTile * kDepth];
};

// A block of packed activations.
struct Panel {
  const char* data;
  int64_t chunks, width;
};

// Tile numbers must be literals.
#define ACCRETE_TILE_PRODUCTS(sum, index)                    \
  if (index < count) {                                       \
    const WeightTile tile = weights.at(index, chunk);        \
    _tile_loadd(7, tile.data, tile.stride);                  \
    if (prefetch) weights.prefetch(index, chunk);            \
    _tile_dpbf16ps(sum, 7, 4);                               \
    _tile_dpbf16ps(sum, 7, 5);                               \
    _tile_dpbf16ps(sum, 7, 6);                               \
  }

// Sums of `count` <= 4 tiles of outputs with one block of tokens into out [4][16 outputs][16], the tokens in front.
void tile_sums(WeightTiles& weights, int64_t count, const Panel& panel, bool prefetch, float* out) {
  const char* part = panel.data;
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
  for (int64_t chunk = 0; chunk < panel.chunks; ++chunk, part += kParts * part_bytes(panel.width)) {
    _tile_loadd(4, part, 4 * panel.width);
    _tile_loadd(5, part + part_bytes(panel.width), 4 * panel.width);
    _tile_loadd(6, part + 2 * part_bytes(panel.width), 4 * panel.width);
    ACCRETE_TILE_PRODUCTS(0, 0)
    ACCRETE_TILE_PRODUCTS(1, 1)
    ACCRETE_TILE_PRODUCTS(2, 2)
    ACCRETE_TILE_PRODUCTS(3, 3)
  }
  _tile_stored(0, out, 64);
  _tile_stored(1, out + 256, 64);
  _tile_stored(2, out + 512, 64);
  _tile_stored(3, out + 768, 64);
}
#undef ACCRETE_TILE_PRODUCTS

// One C tile [16 outputs][16 tokens] into rows of y, from column n on, columns below `end` only.
void store_tile(const float* sums, const View<float, 2>& y, int64_t n, int64_t end) {
  __m512i row[kTile];
  for (int i = 0; i < kTile; ++i) row[i] = _mm512_load_si512(sums + i * kTile);
  transpose(row);
  const int64_t columns = end - n;
  const auto mask = static_cast<__mmask16>(columns >= kTile ? 0xffff : (1 << columns) - 1);
  for (int64_t t = 0; t < y.shape[0]; ++t) {
    _mm512_mask_storeu_ps(y.data + t * y.stride[0] + n, mask, _mm512_castsi512_ps(row[t]));
  }
}

void columns(const DotOperands& op, int64_t begin, int64_t end) {
  const View<const bf16, 2> w = op.w.as<const bf16>();
  const int64_t chunks = chunks_of(w.shape[1]), rows = op.y.shape[0];
  const int64_t width = block_width(rows);
  const TileConfig config(width);
  _tile_loadconfig(&config);
  alignas(64) float sums[kOutputTiles * kTile * kTile];
  for (int64_t n = begin; n < end; n += kOutputTiles * kTile) {
    const int64_t count = std::min(kOutputTiles, (end - n + kTile - 1) / kTile);
    for (int64_t t = 0; t < rows; t += kTile) {
      WeightTiles weights(w, n, end);
      const char* block = reinterpret_cast<const char*>(op.panel) + t / kTile * chunks * kParts * part_bytes(width);
      tile_sums(weights, count, {block, chunks, width}, t == 0, sums);
      const View<float, 2> y = op.y.rows(t, std::min(t + kTile, rows));
      for (int64_t i = 0; i < count; ++i) store_tile(sums + i * kTile * kTile, y, n + i * kTile, end);
    }
  }
  _tile_release();
}

}  // namespace

const DotKernels kDotAmx{kTile, panel_size, pack, columns};

}  // namespace accrete

#endif
