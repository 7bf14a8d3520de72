// The body of the dot kernels, a template over the vector type of an instruction level. Included by dot_portable.cpp,
// dot_avx2.cpp and dot_avx512.cpp below their target pragma; their Lanes types have internal linkage, so no instantiation
// is shared between levels.
//
// Lanes provides: Vec, kLanes, zero(), load(const float*), fma(a, b, sum), widen(const W*, Vec& first, Vec& second),
// prefetch(const void*), reduce8(const Vec*, float*), columns_for(rows).
//
// A chunk is 2 kLanes deep. Panel of a block of R rows: [chunk][R][2][kLanes], the halves of a chunk in the order in which
// widen() returns the weights' halves: for bf16 the even and the odd depths (one shift or mask each), for f32 as stored.
#pragma once

// Every loop over a tile, so that the sums live in registers.
#define ACCRETE_UNROLL _Pragma("GCC unroll 64")

namespace accrete {

inline constexpr int kDotRows = 8;  // rows of a packed block

template <class Lanes, class W>
struct DotTile {
  using Vec = typename Lanes::Vec;
  static constexpr int64_t kLanes = Lanes::kLanes;
  static constexpr int64_t kChunk = 2 * kLanes;
  // Tiles walk through the weights from first to last byte, so a fixed distance ahead touches each line once. Into the second
  // level: its queue is three times as long as the first's, which is what a core's share of memory bandwidth takes.
  static constexpr int64_t kPrefetchBytes = 16 << 10;

  // Sums of R rows with C weight rows at w, w + stride, ... into out [R][C].
  template <int R, int C>
  static void sums(const float* panel, const W* w, int64_t stride, int64_t depth, float* out) {
    constexpr int kSums = (R * C + 7) / 8 * 8;
    Vec sum[kSums];
    ACCRETE_UNROLL
    for (int i = 0; i < kSums; ++i) sum[i] = Lanes::zero();
    const int64_t whole = depth / kChunk;
    for (int64_t chunk = 0; chunk < whole; ++chunk) {
      step<R, C>(panel + chunk * R * kChunk, w + chunk * kChunk, stride, sum);
    }
    if (whole * kChunk < depth) {
      W tail[C][kChunk] = {};
      for (int c = 0; c < C; ++c) {
        for (int64_t k = whole * kChunk; k < depth; ++k) tail[c][k - whole * kChunk] = w[c * stride + k];
      }
      step<R, C>(panel + whole * R * kChunk, tail[0], kChunk, sum);
    }
    ACCRETE_UNROLL
    for (int i = 0; i < kSums; i += 8) Lanes::reduce8(sum + i, out + i);
  }

  // By way of an integer: past the end of the weights no pointer may point, but a prefetch may ask.
  static inline __attribute__((always_inline)) const void* ahead(const W* at) {
    return reinterpret_cast<const void*>(reinterpret_cast<uintptr_t>(at) + kPrefetchBytes);
  }

  template <int R, int C>
  static inline __attribute__((always_inline)) void step(const float* panel, const W* w, int64_t stride, Vec* sum) {
    Vec first[C], second[C];
    ACCRETE_UNROLL
    for (int c = 0; c < C; ++c) Lanes::widen(w + c * stride, first[c], second[c]);
    ACCRETE_UNROLL
    for (int c = 0; c < C; ++c) Lanes::prefetch(ahead(w + c * stride));
    ACCRETE_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vec x = Lanes::load(panel + r * kChunk);
      ACCRETE_UNROLL
      for (int c = 0; c < C; ++c) sum[r * C + c] = Lanes::fma(x, first[c], sum[r * C + c]);
    }
    ACCRETE_UNROLL
    for (int r = 0; r < R; ++r) {
      const Vec x = Lanes::load(panel + r * kChunk + kLanes);
      ACCRETE_UNROLL
      for (int c = 0; c < C; ++c) sum[r * C + c] = Lanes::fma(x, second[c], sum[r * C + c]);
    }
  }

  template <int R, int C>
  static void tile(const float* panel, const View<const W, 2>& w, int64_t n, float* y, int64_t y_stride) {
    float out[(R * C + 7) / 8 * 8];
    sums<R, C>(panel, w.data + n * w.stride[0], w.stride[0], w.shape[1], out);
    for (int r = 0; r < R; ++r) {
      for (int c = 0; c < C; ++c) y[r * y_stride + n + c] = out[r * C + c];
    }
  }

  // Columns [begin, end) of one block of R rows.
  template <int R>
  static void block(const float* panel, const View<const W, 2>& w, int64_t begin, int64_t end, View<float, 2> y) {
    constexpr int kColumns = Lanes::columns_for(R);
    int64_t n = begin;
    for (; n + kColumns <= end; n += kColumns) tile<R, kColumns>(panel, w, n, y.data, y.stride[0]);
    for (; n < end; ++n) tile<R, 1>(panel, w, n, y.data, y.stride[0]);
  }

  static void any_block(const float* panel, const View<const W, 2>& w, int64_t begin, int64_t end, View<float, 2> y) {
    switch (y.shape[0]) {
      case 1: return block<1>(panel, w, begin, end, y);
      case 2: return block<2>(panel, w, begin, end, y);
      case 3: return block<3>(panel, w, begin, end, y);
      case 4: return block<4>(panel, w, begin, end, y);
      case 5: return block<5>(panel, w, begin, end, y);
      case 6: return block<6>(panel, w, begin, end, y);
      case 7: return block<7>(panel, w, begin, end, y);
      default: return block<kDotRows>(panel, w, begin, end, y);
    }
  }

  // Weight rows in groups that stay in the second-level cache while every block of activations passes over them.
  static void columns(const DotOperands& op, int64_t begin, int64_t end) {
    constexpr int64_t kGroupBytes = 512 << 10;
    const View<const W, 2> w = op.w.as<const W>();
    const int64_t depth = w.shape[1], rows = op.y.shape[0];
    const int64_t padded = (depth + kChunk - 1) / kChunk * kChunk;
    const int64_t group = std::max<int64_t>(64, kGroupBytes / std::max<int64_t>(1, depth * static_cast<int64_t>(sizeof(W))));
    for (int64_t n = begin; n < end; n += group) {
      for (int64_t t = 0; t < rows; t += kDotRows) {
        const View<float, 2> y = op.y.rows(t, std::min<int64_t>(t + kDotRows, rows));
        any_block(op.panel + t * padded, w, n, std::min(n + group, end), y);
      }
    }
  }
};

template <class Lanes>
struct DotLevel {
  static constexpr int64_t kChunk = 2 * Lanes::kLanes;

  static int64_t panel_size(int64_t rows, int64_t depth) { return rows * ((depth + kChunk - 1) / kChunk * kChunk); }

  template <class X>
  static void pack_rows(const View<const X, 2>& x, bool split, int64_t block, float* panel) {
    const int64_t first = block * kDotRows, depth = x.shape[1];
    const int64_t rows = std::min<int64_t>(kDotRows, x.shape[0] - first);
    const int64_t padded = (depth + kChunk - 1) / kChunk * kChunk;
    panel += first * padded;
    for (int64_t r = 0; r < rows; ++r) {
      const X* in = x.data + (first + r) * x.stride[0];
      for (int64_t k = 0; k < padded; ++k) {
        const int64_t i = k % kChunk;
        const int64_t at = split ? i % 2 * Lanes::kLanes + i / 2 : i;
        panel[(k / kChunk * rows + r) * kChunk + at] = k < depth ? static_cast<float>(in[k]) : 0.0f;
      }
    }
  }

  static void pack(const AnyView<2>& x, DType w, int64_t block, float* panel) {
    const bool split = w == DType::bf16;
    if (x.dtype == DType::bf16) return pack_rows(x.as<const bf16>(), split, block, panel);
    pack_rows(x.as<const float>(), split, block, panel);
  }

  static void columns(const DotOperands& op, int64_t begin, int64_t end) {
    if (op.w.dtype == DType::bf16) return DotTile<Lanes, bf16>::columns(op, begin, end);
    DotTile<Lanes, float>::columns(op, begin, end);
  }
};

}  // namespace accrete
