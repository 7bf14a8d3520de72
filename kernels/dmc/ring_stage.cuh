// How the token-by-token kernels read a head's ring: through a warp's shared memory, so that all entries are in flight at once and none
// needs a register.
#pragma once

#include "kernels/dmc/update_head.cuh"

namespace accrete {

inline constexpr int kMostStaged = 16;  // ring entries of a warp in flight

template <int kPairs>
struct RingStage {
  static constexpr int kSize = HeadLanes<kPairs>::kSize;
  static constexpr int kEntryBytes = 4 * kSize;  // key and value
  int room;         // entries
  bf16* sEntries;   // [room, key and value, D], from the value on in lanes 16-31
  float* sWeights;  // [room]

  __host__ __device__ static int entries(int window) { return min(max(window - 1, 0), kMostStaged); }
  __host__ __device__ static int bytes(int window) { return entries(window) * kEntryBytes + (entries(window) + 3) / 4 * 16; }

  __device__ explicit RingStage(int window) : room(entries(window)) {
    extern __shared__ uint4 sMemory[];
    char* mine = reinterpret_cast<char*>(sMemory) + static_cast<int>(threadIdx.x) / 32 * bytes(window);
    sEntries = reinterpret_cast<bf16*>(mine) + half_of_warp() * kSize;
    sWeights = reinterpret_cast<float*>(mine + room * kEntryBytes);
  }
  // Adds `count` entries from `oldest` on.
  __device__ void add(WindowSum<kPairs>& sum, const Ring<kPairs>& ring, int oldest, int count) const {
    using Copy = AsyncCopy<kPairs>;
    for (int first = 0; first < count; first += room) {
      const int here = min(room, count - first);
#pragma unroll 4
      for (int i = 0; i < here; ++i) {
        Copy::template copy<false>(Copy::lane_part_shared(sEntries + i * 2 * kSize), Copy::lane_part(ring.entries + ring.wrapped(oldest + first + i) * kSize));
      }
      if (lane_of_warp() < here) copy_async(sWeights + lane_of_warp(), ring.weights + ring.wrapped(oldest + first + lane_of_warp()));
      wait_copies();
      __syncwarp();
#pragma unroll 4
      for (int i = 0; i < here; ++i) sum.add(sWeights[i], PackedLanes<kPairs>::load(sEntries + i * 2 * kSize));
      __syncwarp();  // before the next copies
    }
  }
};

}  // namespace accrete
