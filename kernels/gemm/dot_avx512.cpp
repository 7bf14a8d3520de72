// Dot kernels for AVX-512 (F, BW, DQ, VL).
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>

#include "kernels/gemm/dot.h"

// GCC 12's own intrinsics start from deliberately undefined registers and warn about it.
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")

#include "kernels/gemm/dot_tile.h"

namespace accrete {
namespace {

struct Lanes512 {
  using Vec = __m512;
  static constexpr int64_t kLanes = 16;

  // 32 registers: the sums, the widened weights of one half and one vector of activations.
  static constexpr int columns_for(int rows) {
    constexpr int kColumns[] = {8, 8, 8, 6, 4, 4, 3, 3};
    return kColumns[rows - 1];
  }
  static Vec zero() { return _mm512_setzero_ps(); }
  // In a register: GCC would fold the load into every multiply-add that uses it, and loads are the scarcer.
  static inline __attribute__((always_inline)) Vec load(const float* from) {
    Vec value = _mm512_loadu_ps(from);
    asm("" : "+v"(value));
    return value;
  }
  static Vec fma(Vec a, Vec b, Vec sum) { return _mm512_fmadd_ps(a, b, sum); }
  // Always inline: GCC takes a call that only prefetches for one without effect and drops it.
  static inline __attribute__((always_inline)) void prefetch(const void* at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T1); }
  static void widen(const bf16* from, Vec& even, Vec& odd) {
    const __m512i pairs = _mm512_loadu_si512(from);
    even = _mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16));
    odd = _mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static void widen(const float* from, Vec& first, Vec& second) {
    first = _mm512_loadu_ps(from);
    second = _mm512_loadu_ps(from + kLanes);
  }

  // Within each quarter (e0 + e2) + (e1 + e3), then the quarters (q0 + q2) + (q1 + q3); eight sums at a time.
  static Vec fold_pair(Vec a, Vec b) { return _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b)); }
  static Vec fold_quad(Vec ab, Vec cd) {
    const __m512d low = _mm512_castps_pd(ab), high = _mm512_castps_pd(cd);
    return _mm512_add_ps(_mm512_castpd_ps(_mm512_unpacklo_pd(low, high)), _mm512_castpd_ps(_mm512_unpackhi_pd(low, high)));
  }
  static void reduce8(const Vec* sum, float* out) {
    const Vec low = fold_quad(fold_pair(sum[0], sum[1]), fold_pair(sum[2], sum[3]));
    const Vec high = fold_quad(fold_pair(sum[4], sum[5]), fold_pair(sum[6], sum[7]));
    const Vec halves = _mm512_add_ps(_mm512_shuffle_f32x4(low, high, 0x44), _mm512_shuffle_f32x4(low, high, 0xee));
    const Vec all = _mm512_add_ps(halves, _mm512_shuffle_f32x4(halves, halves, 0xb1));
    _mm_storeu_ps(out, _mm512_castps512_ps128(all));
    _mm_storeu_ps(out + 4, _mm512_extractf32x4_ps(all, 2));
  }
};

}  // namespace

const DotKernels kDotAvx512{kDotRows, DotLevel<Lanes512>::panel_size, DotLevel<Lanes512>::pack,
                           DotLevel<Lanes512>::columns};

}  // namespace accrete

#endif
