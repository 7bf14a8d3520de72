// The update token by token: decode steps, where sequences have one each, and prompts whose window is unlimited.
//
// Decode, for each sequence and KV head, D = 128, G = 1: reads 768 B of qkv, 512 B of angles (shared through L2) and the ring entries of
// the open segment (516 B each), writes 256 B of q, a ring entry, and 512 B of page. What costs time at small batches is how many loads
// wait for one another. The chain is row -> slots, segment -> ring entries all at once, beside them the page's id or, where a page must
// be taken, the counter and then the free list's entry, which is in the level-two cache by then; qkv, angles and queries lie in its shadow.
#include "kernels/cuda.h"
#include "kernels/dependent_launch.cuh"
#include "kernels/dmc/dmc_tokens.cuh"
#include "kernels/dmc/ring_stage.cuh"

namespace accrete {
namespace {

constexpr int kWarpsPerBlock = 4;
constexpr int kThreads = 32 * kWarpsPerBlock;

// A load that is issued where it stands, ahead of what the compiler would rather do first.
__device__ int load_now(const int32_t* from) {
  int value;
  asm volatile("ld.global.b32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}

// The open slot of one head while tokens pass through it.
struct OpenSlot {
  int table;    // (row, head) in the tables
  int slots;    // of the head
  int segment;  // tokens in the open one
};

__device__ OpenSlot load_slot(const UpdateArgs& a, int row, int head) {
  const int table = row * a.kv_heads + head;
  return {table, load_now(a.slots + table), a.dmc.mode != DmcMode::off ? load_now(a.segment + table) : 0};
}

__device__ void save_slot(const UpdateArgs& a, const OpenSlot& open) {
  __syncwarp();  // all lanes have read the counts
  if (lane_of_warp() != 0) return;
  a.slots[open.table] = open.slots;
  if (a.dmc.mode != DmcMode::off) a.segment[open.table] = open.segment;
}

// A new page for the head's slots from index * S on, or kNoPage. Lane 0 takes it for the warp.
__device__ int32_t open_page(const UpdateArgs& a, int32_t* pages, int index) {
  int32_t page = kNoPage;
  if (lane_of_warp() == 0) {
    if (index < a.max_pages) page = take_page(a.pool);
    else *a.pool.exhausted = 1;
    if (page != kNoPage) pages[index] = page;
  }
  return __shfl_sync(kAllLanes, page, 0);
}

// The averages of the open slot after a token that is number `age` of its segment.
template <int kPairs>
__device__ HeadLanes<kPairs> windowed_mean(const UpdateArgs& a, int table, const PackedLanes<kPairs>& token, float weight, int age) {
  Ring<kPairs> ring(a, table);
  const int newest = a.by_window.remainder(age), older = min(age, ring.window - 1);
  WindowSum<kPairs> sum;
  RingStage<kPairs>(ring.window).add(sum, ring, newest >= older ? newest - older : newest - older + ring.window, older);
  ring.store(newest, token, weight);
  if (older == 0) return HeadLanes<kPairs>::unpacked(token);
  sum.add(weight, token);
  return sum.mean();
}

// The same without a limit: sums are kept instead of a ring.
template <int kPairs>
__device__ HeadLanes<kPairs> running_mean(const UpdateArgs& a, int table, const PackedLanes<kPairs>& token, float weight, int age) {
  float* kept = static_cast<float*>(half_of_warp() == 0 ? a.ring_k : a.ring_v) + static_cast<int64_t>(table) * HeadLanes<kPairs>::kSize;
  WindowSum<kPairs> sum;
  if (age > 0) sum = {HeadLanes<kPairs>::load(kept), a.ring_w[table]};
  sum.add(weight, token);
  sum.sum.store(kept);
  __syncwarp();  // all lanes have read the weight
  if (lane_of_warp() == 0) a.ring_w[table] = sum.weight;
  __syncwarp();
  return sum.mean();
}

// The token enters its slot, whose entry is returned and written to its page. A token whose slot can have no page changes nothing.
template <int kPairs>
__device__ PackedLanes<kPairs> enter_token(const UpdateArgs& a, const HeadToken& at, PackedLanes<kPairs> token, Decision decision, OpenSlot& open) {
  const bool append = !decision.accumulate || open.slots == 0;
  const int slot = append ? open.slots : open.slots - 1, index = a.by_page_slots.quotient(slot), within = slot - index * a.page_slots;
  int32_t* pages = a.page_rows + static_cast<int64_t>(open.table) * a.max_pages;
  if (lane_of_warp() == 0) a.own_slot[at.t * a.kv_heads + at.head] = slot;
  zero_neuron(a, token);
  int32_t page;
  if (append && within == 0) {
    page = open_page(a, pages, index);
    if (page == kNoPage) return token;
  } else {
    page = load_now(pages + index);  // nobody looks at it before the entry is ready
  }
  const int age = append ? 0 : open.segment;
  open.slots = slot + 1;
  open.segment = age + 1;
  HeadLanes<kPairs> mean;
  if (a.dmc.mode == DmcMode::off) mean = HeadLanes<kPairs>::unpacked(token);
  else if (a.dmc.window > 0) [[likely]] mean = windowed_mean<kPairs>(a, open.table, token, decision.weight, age);
  else mean = running_mean<kPairs>(a, open.table, token, decision.weight, age);
  constexpr int64_t kHalf = HeadLanes<kPairs>::kHalf;
  const auto entry = cache_entry<kPairs>(a, mean, Angles<kPairs>::load(a.cos + at.t * kHalf, a.sin + at.t * kHalf));
  if (page != kNoPage) store_entry<kPairs>(a, page, within, entry);
  __syncwarp();  // what one lane wrote into the ring another may read for the next token
  return entry;
}

// Grid: [pairs of queries of all heads / kWarpsPerBlock, sequences + 1]. A warp rotates two queries of a head; the first one of a head
// updates its cache too. The additional blocks come first and bring the free list's next entries.
template <int kPairs, DmcMode kMode>
__global__ void __launch_bounds__(kThreads, kPairs == 8 ? 5 : 8) decode_kernel(const UpdateArgs a) {
  using Lanes = HeadLanes<kPairs>;
  using Packed = PackedLanes<kPairs>;
  constexpr int64_t kHalf = Lanes::kHalf;
  __builtin_assume(a.dmc.mode == kMode);
  launch_next();  // attention takes room when all blocks of this have theirs, and waits
  if (blockIdx.y == 0) {
    if (blockIdx.x == 0) prefetch_free_list(a.pool);
    return;
  }
  const int sequence = static_cast<int>(blockIdx.y) - 1, row = load_now(a.row + sequence);
  const int unit = blockIdx.x * kWarpsPerBlock + threadIdx.x / 32, head = a.query_pairs.quotient(unit), first_query = a.query_pairs.remainder(unit) * 2;
  if (head >= a.kv_heads) return;
  const HeadToken at{sequence, sequence, head};
  const int query = min(first_query + half_of_warp(), a.group - 1);  // the last one of an odd group twice
  const Packed packed = Packed::load(query_of(a, at, query, Lanes::kSize));
  const auto angles = Angles<kPairs>::load(a.cos + at.t * kHalf, a.sin + at.t * kHalf);
  if (first_query > 0) {
    if (row >= 0) store_query<kPairs>(a, at, query, packed, angles);
    return;
  }
  const Packed token = load_key_value<kPairs>(a, at);
  if (row < 0) return;
  OpenSlot open = load_slot(a, row, head);
  const Decision decision = decide_token(a, at, load_neurons(a, at, Lanes::kSize));
  store_query<kPairs>(a, at, query, packed, angles);
  enter_token<kPairs>(a, at, token, decision, open);
  save_slot(a, open);
}

// A warp takes one sequence's tokens through one KV head.
template <int kPairs>
__global__ void __launch_bounds__(kThreads) tokens_kernel(const UpdateArgs a) {
  using Lanes = HeadLanes<kPairs>;
  constexpr int64_t kHalf = Lanes::kHalf;
  const int item = blockIdx.x * kWarpsPerBlock + threadIdx.x / 32;
  if (item >= a.sequences * a.kv_heads) return;
  const int sequence = a.first_sequence + item / a.kv_heads, head = item % a.kv_heads, row = a.row[sequence];
  if (row < 0) return;
  OpenSlot open = load_slot(a, row, head);
  const int end = a.begin[sequence + 1];
  for (int t = a.begin[sequence]; t < end; ++t) {
    const HeadToken at{t, sequence, head};
    const auto token = load_key_value<kPairs>(a, at);
    const auto angles = Angles<kPairs>::load(a.cos + t * kHalf, a.sin + t * kHalf);
    for (int first = 0; first < a.group; first += 2) {
      const int query = min(first + half_of_warp(), a.group - 1);
      store_query<kPairs>(a, at, query, PackedLanes<kPairs>::load(query_of(a, at, query, Lanes::kSize)), angles);
    }
    const auto entry = enter_token<kPairs>(a, at, token, decide_token(a, at, load_neurons(a, at, Lanes::kSize)), open);
    store_own<kPairs>(a, at, entry);
  }
  save_slot(a, open);
}

template <int kPairs>
size_t stage_bytes(const UpdateArgs& a) {
  return a.dmc.mode == DmcMode::off ? 0 : kWarpsPerBlock * RingStage<kPairs>::bytes(a.dmc.window);
}

// Allows as much shared memory as any window needs.
template <int kPairs>
cudaError_t allow_stage(void (*kernel)(UpdateArgs)) {
  return cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kWarpsPerBlock * RingStage<kPairs>::bytes(kMostStaged + 1));
}

template <int kPairs, DmcMode kMode>
void launch_mode(const UpdateArgs& a, cudaStream_t stream) {
  ACCRETE_CUDA_CHECK(allow_stage<kPairs>(decode_kernel<kPairs, kMode>));
  const int units = a.kv_heads * ((a.group + 1) / 2);
  const dim3 grid((units + kWarpsPerBlock - 1) / kWarpsPerBlock, a.sequences + 1);
  decode_kernel<kPairs, kMode><<<grid, kThreads, stage_bytes<kPairs>(a), stream>>>(a);
}

template <int kPairs>
void launch_decodes(const UpdateArgs& a, cudaStream_t stream) {
  if (a.dmc.mode == DmcMode::learned) return launch_mode<kPairs, DmcMode::learned>(a, stream);
  if (a.dmc.mode == DmcMode::synthetic) return launch_mode<kPairs, DmcMode::synthetic>(a, stream);
  launch_mode<kPairs, DmcMode::off>(a, stream);
}

template <int kPairs>
void launch_tokens(const UpdateArgs& a, cudaStream_t stream) {
  ACCRETE_CUDA_CHECK(allow_stage<kPairs>(tokens_kernel<kPairs>));
  const int blocks = (a.sequences * a.kv_heads + kWarpsPerBlock - 1) / kWarpsPerBlock;
  tokens_kernel<kPairs><<<blocks, kThreads, stage_bytes<kPairs>(a), stream>>>(a);
}

}  // namespace

void launch_decode_update(const UpdateArgs& args, cudaStream_t stream) {
  if (args.size == 64) launch_decodes<2>(args, stream);
  else if (args.size == 128) launch_decodes<4>(args, stream);
  else launch_decodes<8>(args, stream);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

void launch_token_update(const UpdateArgs& args, cudaStream_t stream) {
  if (args.size == 64) launch_tokens<2>(args, stream);
  else if (args.size == 128) launch_tokens<4>(args, stream);
  else launch_tokens<8>(args, stream);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete
