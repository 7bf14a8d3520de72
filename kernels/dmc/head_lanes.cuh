// Two vectors of D components on one warp: a head's key on lanes 0-15 and its value on lanes 16-31, or two queries. Lane i of a half has
// components [i P, (i + 1) P) of its vector's first half and the same of the second, P = D / 32: what RoPE rotates together meets in one
// lane. A vector's last component, the decision or importance neuron, is the last of lane 15 or 31.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace accrete {

inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kHalfWarp = 16;

__device__ inline int lane_of_warp() { return threadIdx.x % 32; }
__device__ inline int lane_of_half() { return threadIdx.x % kHalfWarp; }
__device__ inline int half_of_warp() { return threadIdx.x / kHalfWarp % 2; }

// N elements that lie together and are moved by as few accesses as there can be.
template <class T, int N>
struct alignas(N * sizeof(T) < 16 ? N * sizeof(T) : 16) Pack {
  T value[N];
};

// Copies of vectors x[D] to shared memory, one a half-warp: the lane's sixteenth, in one run. They are in flight until wait_copies().
template <int kPairs>
struct AsyncCopy {
  static constexpr int kLaneBytes = 4 * kPairs;

  __device__ static const char* lane_part(const bf16* x) { return reinterpret_cast<const char*>(x) + lane_of_half() * kLaneBytes; }
  __device__ static uint32_t lane_part_shared(const void* x) { return static_cast<uint32_t>(__cvta_generic_to_shared(x)) + lane_of_half() * kLaneBytes; }
  // kStream: past the level-one cache.
  template <bool kStream>
  __device__ static void copy(uint32_t to, const char* from) {
    if (kLaneBytes < 16) asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(to), "l"(from));
#pragma unroll
    for (int at = 0; at + 16 <= kLaneBytes; at += 16) {
      if (kStream) asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + at), "l"(from + at));
      else asm volatile("cp.async.ca.shared.global [%0], [%1], 16;" ::"r"(to + at), "l"(from + at));
    }
  }
};
// One word.
template <class T>
__device__ inline void copy_async(T* to, const T* from) {
  static_assert(sizeof(T) == 4);
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(static_cast<uint32_t>(__cvta_generic_to_shared(to))), "l"(from));
}
// Until the thread's own copies are there.
__device__ inline void wait_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

// Cosines and sines of one token, [D/2] each: the lane's P.
template <int kPairs>
struct Angles {
  Pack<float, kPairs> cos, sin;
  __device__ static Angles load(const float* cos, const float* sin) {
    using Piece = Pack<float, kPairs>;
    return {*reinterpret_cast<const Piece*>(cos + lane_of_half() * kPairs), *reinterpret_cast<const Piece*>(sin + lane_of_half() * kPairs)};
  }
};

// The lane's components as they lie in memory, bf16 two by two.
template <int kPairs>
struct PackedLanes {
  using Piece = Pack<uint32_t, kPairs / 2>;
  static constexpr int kHalf = kHalfWarp * kPairs;
  Piece lo, hi;

  // x[D]: the vector of the lane's half.
  __device__ static PackedLanes load(const bf16* x) { return load_mine(x + lane_of_half() * kPairs); }
  __device__ void store(bf16* x) const { store_mine(x + lane_of_half() * kPairs); }
  // The last component of the vector becomes 0 where asked.
  __device__ void zero_last(bool asked) {
    if (asked && lane_of_half() == kHalfWarp - 1) hi.value[kPairs / 2 - 1] &= 0xffffu;
  }

 private:
  // From the lane's own first component on.
  __device__ static PackedLanes load_mine(const bf16* x) {
    return {*reinterpret_cast<const Piece*>(x), *reinterpret_cast<const Piece*>(x + kHalf)};
  }
  __device__ void store_mine(bf16* x) const {
    *reinterpret_cast<Piece*>(x) = lo;
    *reinterpret_cast<Piece*>(x + kHalf) = hi;
  }
};

template <int kPairs>
struct HeadLanes {
  using Packed = PackedLanes<kPairs>;
  static constexpr int kHalf = Packed::kHalf;
  static constexpr int kSize = 2 * kHalf;  // D
  float lo[kPairs];
  float hi[kPairs];

  __device__ static HeadLanes unpacked(const Packed& packed) {
    HeadLanes out;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      out.lo[i] = element(packed.lo, i);
      out.hi[i] = element(packed.hi, i);
    }
    return out;
  }
  __device__ Packed packed() const {
    Packed out;
#pragma unroll
    for (int i = 0; i < kPairs / 2; ++i) {
      out.lo.value[i] = rounded(lo[2 * i], lo[2 * i + 1]);
      out.hi.value[i] = rounded(hi[2 * i], hi[2 * i + 1]);
    }
    return out;
  }
  // x[D], f32.
  __device__ static HeadLanes load(const float* x) {
    HeadLanes out;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      out.lo[i] = x[lane_of_half() * kPairs + i];
      out.hi[i] = x[kHalf + lane_of_half() * kPairs + i];
    }
    return out;
  }
  __device__ void store(float* x) const {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      x[lane_of_half() * kPairs + i] = lo[i];
      x[kHalf + lane_of_half() * kPairs + i] = hi[i];
    }
  }
  __device__ void add_scaled(float factor, const Packed& other) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      lo[i] = __fmaf_rn(factor, element(other.lo, i), lo[i]);
      hi[i] = __fmaf_rn(factor, element(other.hi, i), hi[i]);
    }
  }
  __device__ void scale(float factor) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      lo[i] *= factor;
      hi[i] *= factor;
    }
  }
  // Half-split RoPE. Its roundings are spelled out: all kernels must agree on them.
  __device__ void rotate(const Angles<kPairs>& angles) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      const float cos = angles.cos.value[i], sin = angles.sin.value[i], x = lo[i], y = hi[i];
      lo[i] = __fmaf_rn(x, cos, -__fmul_rn(y, sin));
      hi[i] = __fmaf_rn(x, sin, __fmul_rn(y, cos));
    }
  }

 private:
  __device__ static float element(const typename Packed::Piece& piece, int i) {
    const uint32_t word = piece.value[i / 2];
    return __uint_as_float(i % 2 ? word & 0xffff0000u : word << 16);
  }
  __device__ static uint32_t rounded(float first, float second) {
    uint32_t word;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(second), "f"(first));
    return word;
  }
};

}  // namespace accrete
