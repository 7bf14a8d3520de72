// Dot kernels in the compiler's own four-lane vectors, and the choice of a level.
#include <algorithm>
#include <cstring>

#include "kernels/gemm/dot.h"
#include "kernels/gemm/dot_tile.h"

namespace accrete {
namespace {

struct Lanes128 {
  typedef float Vec __attribute__((vector_size(16)));
  typedef uint32_t Bits __attribute__((vector_size(16)));
  static constexpr int64_t kLanes = 4;

  static constexpr int columns_for(int rows) {
    constexpr int kColumns[] = {8, 4, 3, 2, 2, 1, 1, 1};
    return kColumns[rows - 1];
  }
  static Vec zero() { return Vec{}; }
  static Vec load(const float* from) {
    Vec value;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  static Vec fma(Vec a, Vec b, Vec sum) { return a * b + sum; }
  // Always inline: GCC takes a call that only prefetches for one without effect and drops it.
  static inline __attribute__((always_inline)) void prefetch(const void* at) { __builtin_prefetch(at, 0, 2); }
  // Little-endian: the even depth is the lower half of a pair.
  static void widen(const bf16* from, Vec& even, Vec& odd) {
    Bits pairs;
    std::memcpy(&pairs, from, sizeof(pairs));
    even = reinterpret_cast<Vec>(pairs << 16);
    odd = reinterpret_cast<Vec>(pairs & 0xffff0000u);
  }
  static void widen(const float* from, Vec& first, Vec& second) {
    first = load(from);
    second = load(from + kLanes);
  }
  static void reduce8(const Vec* sum, float* out) {
    for (int i = 0; i < 8; ++i) out[i] = (sum[i][0] + sum[i][2]) + (sum[i][1] + sum[i][3]);
  }
};

}  // namespace

const DotKernels kDotPortable{kDotRows, DotLevel<Lanes128>::panel_size, DotLevel<Lanes128>::pack,
                           DotLevel<Lanes128>::columns};

const DotKernels& dot_kernels(CpuIsa isa, DType w) {
#if defined(__x86_64__)
  if (isa == CpuIsa::amx && w == DType::bf16) return kDotAmx;
  if (isa == CpuIsa::amx) return kDotAvx512;
  if (isa == CpuIsa::avx512) return kDotAvx512;
  if (isa == CpuIsa::avx2) return kDotAvx2;
#endif
  CHECK(isa == CpuIsa::portable, name_of(isa));
  return kDotPortable;
}

}  // namespace accrete
