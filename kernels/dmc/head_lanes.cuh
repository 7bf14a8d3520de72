// A vector of D components spread over a warp as its rotation wants it: lane i holds components [i P, (i + 1) P) of the first half and
// the same of the second, P = D / 64. The last component of all, the decision or importance neuron, is lane 31's last.
#pragma once

#include <cstdint>

#include "kernels/dtype.h"

namespace accrete {

inline constexpr unsigned kAllLanes = 0xffffffffu;
inline constexpr int kLastLane = 31;

template <int kPairs>
struct HeadLanes {
  static constexpr int kHalf = 32 * kPairs;
  static constexpr int kSize = 2 * kHalf;  // D
  float lo[kPairs];
  float hi[kPairs];

  // The lane's part of x[D].
  template <class T>
  __device__ static HeadLanes load(const T* x, int lane) {
    HeadLanes value;
    load_half(x + lane * kPairs, value.lo);
    load_half(x + kHalf + lane * kPairs, value.hi);
    return value;
  }
  template <class T>
  __device__ void store(T* x, int lane) const {
    store_half(x + lane * kPairs, lo);
    store_half(x + kHalf + lane * kPairs, hi);
  }
  // Component D-1, in every lane.
  __device__ float last() const { return __shfl_sync(kAllLanes, hi[kPairs - 1], kLastLane); }
  __device__ void zero_last(int lane) {
    if (lane == kLastLane) hi[kPairs - 1] = 0.0f;
  }
  __device__ void add_scaled(float factor, const HeadLanes& other) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      lo[i] += factor * other.lo[i];
      hi[i] += factor * other.hi[i];
    }
  }
  __device__ void scale(float factor) {
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      lo[i] *= factor;
      hi[i] *= factor;
    }
  }
  // Half-split RoPE; angles: this lane's pairs.
  __device__ HeadLanes rotated(const float (&cos)[kPairs], const float (&sin)[kPairs]) const {
    HeadLanes out;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) {
      out.lo[i] = lo[i] * cos[i] - hi[i] * sin[i];
      out.hi[i] = lo[i] * sin[i] + hi[i] * cos[i];
    }
    return out;
  }

  template <class T>
  __device__ static void load_half(const T* from, float (&to)[kPairs]) {
    struct alignas(kPairs * sizeof(T)) Piece { T value[kPairs]; };
    const Piece piece = *reinterpret_cast<const Piece*>(from);
#pragma unroll
    for (int i = 0; i < kPairs; ++i) to[i] = static_cast<float>(piece.value[i]);
  }
  template <class T>
  __device__ static void store_half(T* to, const float (&from)[kPairs]) {
    struct alignas(kPairs * sizeof(T)) Piece { T value[kPairs]; } piece;
#pragma unroll
    for (int i = 0; i < kPairs; ++i) piece.value[i] = static_cast<T>(from[i]);
    *reinterpret_cast<Piece*>(to) = piece;
  }
};

}  // namespace accrete
