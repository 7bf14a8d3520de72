// enter, the widest step of a prompt's update (dmc_prompt.cu): a block takes the 32 tokens of one word of bits through one KV head. Keys and
// values of the tile, and of the window before it, are copied to shared memory once; every token then sums its window from there.
#pragma once

#include "kernels/dependent_launch.cuh"
#include "kernels/dmc/append_bits.cuh"
#include "kernels/dmc/update_head.cuh"

namespace accrete {

inline constexpr int kTileWarps = 8;
inline constexpr int kTileThreads = 32 * kTileWarps;
inline constexpr int kWarpTokens = kWordTokens / kTileWarps;

// Whether token t is one of the step's prompts.
__device__ inline bool in_step(const UpdateArgs& a, int t) { return t >= a.first_sequence && t < a.tokens; }

// Tokens before a tile that its windows may reach.
ACCRETE_HD inline int tile_past(const DmcParams& dmc) { return dmc.mode == DmcMode::off ? 0 : dmc.window - 1; }

// Shared memory of a block: rows of key and value of tokens first - past .. first + 31, and their weights.
template <int kPairs>
struct Tile {
  static constexpr int kSize = HeadLanes<kPairs>::kSize;
  static constexpr int kPieces = kSize / 4;  // of 16 bytes, of a key and value
  int head;
  int first;        // token
  int past;         // rows before the first token's
  uint4* sRows;     // [past + 32, key and value: 2 D bf16]
  float* sWeights;  // [past + 32]

  __device__ Tile(const UpdateArgs& a, uint4* shared) : head(blockIdx.x), past(tile_past(a.dmc)), sRows(shared) {
    first = (a.first_sequence / kWordTokens + static_cast<int>(blockIdx.y)) * kWordTokens;
    sWeights = reinterpret_cast<float*>(shared + (past + kWordTokens) * kPieces);
  }
  static size_t bytes(int past) { return static_cast<size_t>(past + kWordTokens) * (kPieces * sizeof(uint4) + sizeof(float)); }

  // Starts copying the rows of tokens first + begin .. first + end - 1, a warp a row.
  __device__ void copy_rows(const UpdateArgs& a, int begin, int end) const {
    const int mine = begin + static_cast<int>(threadIdx.x) / 32;
    const char* from = AsyncCopy<kPairs>::lane_part(key_of(a, {first + mine, 0, head}, kSize) + half_of_warp() * a.kv_heads * kSize);
    const uint32_t to = AsyncCopy<kPairs>::lane_part_shared(sRows) + half_of_warp() * 2 * kSize;
    for (int row = mine; row < end; row += kTileWarps, from += kTileWarps * a.qkv_row_bytes) {
      if (in_step(a, first + row)) AsyncCopy<kPairs>::template copy<true>(to + (past + row) * 4 * kSize, from);
    }
  }
  // The same for the weights of the tile and of `before` tokens before it.
  __device__ void copy_weights(const UpdateArgs& a, int before) const {
    const int t = first - before + static_cast<int>(threadIdx.x);
    if (t < first + kWordTokens && in_step(a, t)) copy_async(sWeights + past - before + threadIdx.x, a.weight + static_cast<int64_t>(head) * a.tokens + t);
  }
  // All that was copied is there, for all threads.
  __device__ static void wait() {
    wait_copies();
    __syncthreads();
  }
  // Key (lanes 0-15) and value of token t as averages see them.
  __device__ PackedLanes<kPairs> token(int t, bool learned) const {
    auto packed = PackedLanes<kPairs>::load(reinterpret_cast<const bf16*>(sRows + (t - first + past) * kPieces) + half_of_warp() * kSize);
    packed.zero_last(learned && half_of_warp() == 0);
    return packed;
  }
  __device__ float weight(int t) const { return sWeights[t - first + past]; }
};

// What a token must know of its sequence and of the tokens before it; lane i of a warp has the warp's token i % kWarpTokens.
struct TokenPlace {
  int table = -1;     // (row, head) in the tables; -1: no token, or a row of padding
  int begin = 0;      // its sequence's first token of the step
  int age = 0;        // tokens of its segment before it; more than kMostWindow may be kMostWindow
  int slot = 0;
  int page = kNoPage;  // of the slot, when this token is the last of its segment in the step

  __device__ TokenPlace shared_from(int lane) const {
    return {__shfl_sync(kAllLanes, table, lane), __shfl_sync(kAllLanes, begin, lane), __shfl_sync(kAllLanes, age, lane), __shfl_sync(kAllLanes, slot, lane),
            __shfl_sync(kAllLanes, page, lane)};
  }
};

// The bits around one word.
struct BitsAround {
  uint32_t own;     // the word
  uint64_t before;  // the two words before it, the nearest in the upper half
  bool next;        // the first bit of the word behind it

  __device__ BitsAround(const UpdateArgs& a, const AppendBits& appends, int index) {
    const int first = a.first_sequence / kWordTokens;
    own = appends.word[index];
    const uint32_t near = index - 1 >= first ? appends.word[index - 1] : 0, far = index - 2 >= first ? appends.word[index - 2] : 0;
    before = static_cast<uint64_t>(near) << 32 | far;
    next = index + 1 < words_of(a) && (appends.word[index + 1] & 1) != 0;
  }
  // Tokens from the newest append up to the word's token i; more than 64: 64 at least.
  __device__ int since_append(int i) const {
    const uint32_t upto = own & (0xffffffffu >> (31 - i));
    if (upto != 0) return i - 31 + __clz(upto);
    return i + 1 + __clzll(static_cast<long long>(before));
  }
  __device__ bool append(int i) const { return i < kWordTokens ? (own >> i & 1) != 0 : next; }
};

__device__ inline TokenPlace token_place(const UpdateArgs& a, const AppendBits& appends, const BitsAround& bits, const HeadToken& at) {
  TokenPlace place;
  if (!in_step(a, at.t)) return place;
  const int sequence = a.sequence[at.t], row = a.row[sequence], end = a.begin[sequence + 1];
  place.begin = a.begin[sequence];
  if (row < 0) return place;
  place.table = row * a.kv_heads + at.head;
  const int in_word = at.t % kWordTokens, since = bits.since_append(in_word), here = at.t - place.begin;
  const int slots = appends.slots_after(at.t, place.begin, a.slots[place.table]);
  place.slot = max(min(slots, a.max_pages * a.page_slots) - 1, 0);  // a row that outgrows its table is void
  const int carried = a.dmc.mode != DmcMode::off ? a.segment[place.table] : 0;  // of the segment before the step
  place.age = since <= here ? since : carried + here;
  const bool last = at.t + 1 == end || bits.append(in_word + 1);
  if (last) place.page = a.page_rows[static_cast<int64_t>(place.table) * a.max_pages + a.by_page_slots.quotient(place.slot)];
  return place;
}

// Sums of a segment's windows, token after token.
template <int kPairs>
struct SegmentSums {
  WindowSum<kPairs> window;
  int summed = -1;  // tokens of the open segment, if those in `window` are all of them

  // The open slot's averages right after token t.
  __device__ HeadLanes<kPairs> after(const UpdateArgs& a, const Tile<kPairs>& tile, const TokenPlace& place, int t) {
    const bool learned = a.dmc.mode == DmcMode::learned;
    const auto token = tile.token(t, learned);
    if (a.dmc.mode == DmcMode::off) return HeadLanes<kPairs>::unpacked(token);
    const int older = min(place.age, a.dmc.window - 1);
    if (summed != place.age || older != place.age || t == place.begin) {
      window = {};
      const int in_ring = max(older - (t - place.begin), 0);
      const Ring<kPairs> ring(a, place.table);
      const int oldest = a.by_window.remainder(place.age - older);
      for (int i = 0; i < in_ring; ++i) window.add(ring.weights[ring.wrapped(oldest + i)], ring.token(ring.wrapped(oldest + i)));
#pragma unroll 4
      for (int from = t - older + in_ring; from < t; ++from) window.add(tile.weight(from), tile.token(from, learned));
    }
    window.add(tile.weight(t), token);
    summed = place.age == older ? older + 1 : -1;
    return older > 0 ? window.mean() : HeadLanes<kPairs>::unpacked(token);
  }
};

// Queries of the warp's tokens: each half-warp has half of the tokens. Loads stand before the stores that they could not pass.
template <int kPairs>
__device__ void rotate_tile_queries(const UpdateArgs& a, int first, int head) {
  using Packed = PackedLanes<kPairs>;
  constexpr int kHalf = HeadLanes<kPairs>::kHalf, kSize = 2 * kHalf, kMine = kWarpTokens / 2, kAtOnce = 16 / kPairs;
  Angles<kPairs> angles[kMine];
  Packed query[kMine];
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const int t = first + half_of_warp() * kMine + i;
    if (!in_step(a, t)) continue;
    angles[i] = Angles<kPairs>::load(a.cos + static_cast<int64_t>(t) * kHalf, a.sin + static_cast<int64_t>(t) * kHalf);
    query[i] = Packed::load(query_of(a, {t, 0, head}, 0, kSize));
  }
#pragma unroll
  for (int i = 0; i < kMine; ++i) {
    const HeadToken at{first + half_of_warp() * kMine + i, 0, head};
    if (!in_step(a, at.t)) continue;
    store_query<kPairs>(a, at, 0, query[i], angles[i]);
#pragma unroll 1
    for (int base = 1; base < a.group; base += kAtOnce) {
      Packed more[kAtOnce];
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (base + j < a.group) more[j] = Packed::load(query_of(a, at, base + j, kSize));
      }
#pragma unroll
      for (int j = 0; j < kAtOnce; ++j) {
        if (base + j < a.group) store_query<kPairs>(a, at, base + j, more[j], angles[i]);
      }
    }
  }
}

// Grid: [heads, words]. What depends on qkv alone is begun before the kernels before this one have ended.
template <int kPairs>
__global__ void __launch_bounds__(kTileThreads, kPairs == 8 ? 2 : 4) enter_kernel(const UpdateArgs a) {
  extern __shared__ uint4 sMemory[];
  constexpr int64_t kHalf = HeadLanes<kPairs>::kHalf;
  const Tile<kPairs> tile(a, sMemory);
  const int first = tile.first + static_cast<int>(threadIdx.x) / 32 * kWarpTokens;
  launch_next();
  tile.copy_rows(a, 0, kWordTokens);
  rotate_tile_queries<kPairs>(a, first, tile.head);
  wait_for_previous();
  const AppendBits appends(a, tile.head);
  const BitsAround bits(a, appends, tile.first / kWordTokens);
  const int before = min(tile.past, bits.since_append(0));
  tile.copy_rows(a, -before, 0);
  tile.copy_weights(a, before);
  const TokenPlace places = token_place(a, appends, bits, {first + lane_of_warp() % kWarpTokens, 0, tile.head});
  Tile<kPairs>::wait();
  if (lane_of_warp() < kWarpTokens && places.table >= 0) a.own_slot[(first + lane_of_warp()) * a.kv_heads + tile.head] = places.slot;
  SegmentSums<kPairs> sums;
  for (int i = 0; i < kWarpTokens; ++i) {
    const TokenPlace place = places.shared_from(i);
    const int t = first + i;
    if (place.table < 0) continue;
    const auto mean = sums.after(a, tile, place, t);
    const auto entry = cache_entry<kPairs>(a, mean, Angles<kPairs>::load(a.cos + t * kHalf, a.sin + t * kHalf));
    store_own<kPairs>(a, {t, 0, tile.head}, entry);
    if (place.page != kNoPage) store_entry<kPairs>(a, place.page, a.by_page_slots.remainder(place.slot), entry);
  }
}

template <int kPairs>
void launch_enter(const UpdateArgs& a, int words, cudaStream_t stream) {
  ACCRETE_CUDA_CHECK(
      cudaFuncSetAttribute(enter_kernel<kPairs>, cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(Tile<kPairs>::bytes(kMostWindow - 1))));
  const auto heads = static_cast<unsigned>(a.kv_heads);
  launch_dependent(enter_kernel<kPairs>, {dim3(heads, static_cast<unsigned>(words)), kTileThreads, Tile<kPairs>::bytes(tile_past(a.dmc)), stream}, a);
}

}  // namespace accrete
