// Dot kernels for AVX2 with FMA.
#if defined(__x86_64__)

#include <immintrin.h>

#include <algorithm>

#include "kernels/gemm/dot.h"

#pragma GCC target("avx2,fma")

#include "kernels/gemm/dot_tile.h"

namespace accrete {
namespace {

struct Lanes256 {
  using Vec = __m256;
  static constexpr int64_t kLanes = 8;

  // 16 registers: the sums, the widened weights of one half and one vector of activations.
  static constexpr int columns_for(int rows) {
    constexpr int kColumns[] = {8, 5, 3, 3, 2, 2, 1, 1};
    return kColumns[rows - 1];
  }
  static Vec zero() { return _mm256_setzero_ps(); }
  static Vec load(const float* from) { return _mm256_loadu_ps(from); }
  static Vec fma(Vec a, Vec b, Vec sum) { return _mm256_fmadd_ps(a, b, sum); }
  // Always inline: GCC takes a call that only prefetches for one without effect and drops it.
  static inline __attribute__((always_inline)) void prefetch(const void* at) { _mm_prefetch(static_cast<const char*>(at), _MM_HINT_T1); }
  static void widen(const bf16* from, Vec& even, Vec& odd) {
    const __m256i pairs = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
    even = _mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16));
    odd = _mm256_castsi256_ps(_mm256_and_si256(pairs, _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static void widen(const float* from, Vec& first, Vec& second) {
    first = _mm256_loadu_ps(from);
    second = _mm256_loadu_ps(from + kLanes);
  }

  // Within each half (e0 + e2) + (e1 + e3), then the halves; four sums at a time.
  static Vec fold_pair(Vec a, Vec b) { return _mm256_add_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b)); }
  static void reduce4(const Vec* sum, float* out) {
    const __m256d low = _mm256_castps_pd(fold_pair(sum[0], sum[1]));
    const __m256d high = _mm256_castps_pd(fold_pair(sum[2], sum[3]));
    const Vec quads =
        _mm256_add_ps(_mm256_castpd_ps(_mm256_unpacklo_pd(low, high)), _mm256_castpd_ps(_mm256_unpackhi_pd(low, high)));
    _mm_storeu_ps(out, _mm_add_ps(_mm256_castps256_ps128(quads), _mm256_extractf128_ps(quads, 1)));
  }
  static void reduce8(const Vec* sum, float* out) {
    reduce4(sum, out);
    reduce4(sum + 4, out + 4);
  }
};

}  // namespace

const DotKernels kDotAvx2{kDotRows, DotLevel<Lanes256>::panel_size, DotLevel<Lanes256>::pack,
                           DotLevel<Lanes256>::columns};

}  // namespace accrete

#endif
