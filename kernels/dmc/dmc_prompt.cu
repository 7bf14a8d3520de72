// The update of prompts in three launches. What a token's slot holds right after it depends on at most W neighbours, so only slot
// numbers need a scan:
//   decide  one block a (sequence, KV head): decisions and weights, a prefix sum of appends -> own_slot, age; pages taken at once
//   enter   one warp a (token, KV head): queries rotated, the window's average, own entry; the last of a segment goes to its page
//   keep    one warp a (sequence, KV head): the newest W tokens of the open segment into the ring
// The split into enter and keep is what lets every token read the ring as the step found it.
#include "kernels/cuda.h"
#include "kernels/dmc/dmc_prompt.cuh"
#include "kernels/dmc/update_head.cuh"

namespace accrete {
namespace {

constexpr int kScanThreads = 256;
constexpr int kScanWarps = kScanThreads / 32;
constexpr int kWarpsPerBlock = 4;
constexpr int kMostWindow = 64;  // longer windows would read more neighbours than a scan costs

__device__ float importance_of(const UpdateArgs& a, const bf16* q, int size) {
  float importance = 0.0f;
  for (int g = 0; g < a.group; ++g) importance += static_cast<float>(q[static_cast<int64_t>(g + 1) * size - 1]);
  return importance / static_cast<float>(a.group);
}

// Prefix of appends over one tile of tokens, carried from tile to tile.
struct TileScan {
  int (&count)[kScanWarps];  // shared: appends in each warp
  int (&last)[kScanWarps];   // shared: token of each warp's last append, -1: none
  int slots;                 // before the tile
  int open;                  // token at which the open segment began, before the tile

  // Slots and the segment's first token as of this thread's token t. All threads of the block; ends with a barrier behind it.
  __device__ void step(bool append, int t, int& slots_now, int& open_now) {
    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned mask = __ballot_sync(kAllLanes, append), below = mask & (kAllLanes >> (31 - lane));
    if (lane == 0) {
      count[warp] = __popc(mask);
      last[warp] = mask ? t + 31 - __clz(mask) : -1;
    }
    __syncthreads();
    slots_now = slots + __popc(below);
    open_now = open;
    for (int w = 0; w < kScanWarps; ++w) {
      if (w < warp) slots_now += count[w];
      if (w < warp && last[w] >= 0) open_now = last[w];
      slots += count[w];
      if (last[w] >= 0) open = last[w];
    }
    if (below) open_now = t - lane + 31 - __clz(below);
    __syncthreads();
  }
};

template <int kSize>
__global__ void __launch_bounds__(kScanThreads) decide_kernel(const UpdateArgs a) {
  __shared__ int sCount[kScanWarps], sLast[kScanWarps];
  __shared__ uint64_t sTicket;
  const int sequence = a.first_sequence + blockIdx.x / a.kv_heads, head = blockIdx.x % a.kv_heads;
  const int row = a.row[sequence];
  if (row < 0) return;
  const int64_t table = static_cast<int64_t>(row) * a.kv_heads + head;
  const bool dmc = a.dmc.mode != DmcMode::off;
  const int begin = a.begin[sequence], end = a.begin[sequence + 1], before = a.slots[table];
  if (end == begin) return;
  TileScan scan{sCount, sLast, before, begin - (dmc ? a.segment[table] : 0)};
  for (int base = begin; base < end; base += kScanThreads) {
    const int t = base + static_cast<int>(threadIdx.x);
    bool append = false;
    const int64_t own = static_cast<int64_t>(t) * a.kv_heads + head;
    if (t < end) {
      const auto vectors = token_vectors<kSize>(a, t, head);
      const bool learned = a.dmc.mode == DmcMode::learned;
      const float importance = learned ? importance_of(a, vectors.q, kSize) : 0.0f;
      const Decision decision = decide_token(a, sequence, head, t, static_cast<float>(vectors.k[kSize - 1]), importance);
      append = !decision.accumulate || a.position[t] == 0 || (t == begin && before == 0);
      a.weight[own] = decision.weight;
    }
    int slots_now, open_now;
    scan.step(append, t, slots_now, open_now);
    if (t >= end) continue;
    a.own_slot[own] = max(slots_now - 1, 0);
    a.age[own] = t - open_now;
  }
  const int held = (before + a.page_slots - 1) / a.page_slots, wanted = (scan.slots + a.page_slots - 1) / a.page_slots;
  if (threadIdx.x == 0) {
    sTicket = wanted <= a.max_pages ? take_tickets(a.pool, wanted - held) : ~0ull;
    if (wanted > a.max_pages) *a.pool.exhausted = 1;
    a.slots[table] = sTicket == ~0ull ? before : scan.slots;
    if (dmc) a.segment[table] = end - scan.open;
  }
  __syncthreads();
  if (sTicket == ~0ull) return;  // the row is void; no page row points anywhere new
  for (int i = threadIdx.x; i < wanted - held; i += kScanThreads) {
    a.page_rows[table * a.max_pages + held + i] = page_of_ticket(a.pool, sTicket + i);
  }
}

// The token's key and value as its segment's average sees them.
template <int kPairs>
__device__ void load_token(const UpdateArgs& a, int64_t t, int head, HeadLanes<kPairs>& k, HeadLanes<kPairs>& v) {
  using Lanes = HeadLanes<kPairs>;
  const auto vectors = token_vectors<Lanes::kSize>(a, t, head);
  k = Lanes::load(vectors.k, threadIdx.x % 32);
  v = Lanes::load(vectors.v, threadIdx.x % 32);
  if (a.dmc.mode == DmcMode::learned) k.zero_last(threadIdx.x % 32);
}

// The average over the newest W tokens of t's segment up to t, oldest first.
template <int kPairs>
__device__ void window_average(const UpdateArgs& a, int t, int head, int64_t table, HeadLanes<kPairs>& k, HeadLanes<kPairs>& v) {
  using Lanes = HeadLanes<kPairs>;
  const int lane = threadIdx.x % 32, window = a.dmc.window, begin = a.begin[a.sequence[t]];
  const int64_t own = static_cast<int64_t>(t) * a.kv_heads + head;
  const int age = a.age[own];
  load_token(a, t, head, k, v);
  const int older = min(age, window - 1);
  if (older == 0) return;
  Lanes mean_k{}, mean_v{};
  float total = 0.0f;
  for (int back = older; back >= 1; --back) {
    Lanes past_k, past_v;
    float w;
    if (t - back >= begin) {
      load_token(a, t - back, head, past_k, past_v);
      w = a.weight[own - static_cast<int64_t>(back) * a.kv_heads];
    } else {
      const int64_t entry = table * window + (age - back) % window;
      past_k = Lanes::load(static_cast<const bf16*>(a.ring_k) + entry * Lanes::kSize, lane);
      past_v = Lanes::load(static_cast<const bf16*>(a.ring_v) + entry * Lanes::kSize, lane);
      w = a.ring_w[entry];
    }
    mean_k.add_scaled(w, past_k);
    mean_v.add_scaled(w, past_v);
    total += w;
  }
  const float w = a.weight[own];
  mean_k.add_scaled(w, k);
  mean_v.add_scaled(w, v);
  mean_k.scale(1.0f / (total + w));
  mean_v.scale(1.0f / (total + w));
  k = mean_k;
  v = mean_v;
}

template <int kPairs>
__global__ void __launch_bounds__(32 * kWarpsPerBlock) enter_kernel(const UpdateArgs a, int first_token, int tokens) {
  using Lanes = HeadLanes<kPairs>;
  const int64_t item = static_cast<int64_t>(blockIdx.x) * kWarpsPerBlock + threadIdx.x / 32;
  if (item >= static_cast<int64_t>(tokens - first_token) * a.kv_heads) return;
  const int t = first_token + static_cast<int>(item / a.kv_heads), head = static_cast<int>(item % a.kv_heads), lane = threadIdx.x % 32;
  const int sequence = a.sequence[t], row = a.row[sequence];
  if (row < 0) return;
  const int64_t table = static_cast<int64_t>(row) * a.kv_heads + head, own = static_cast<int64_t>(t) * a.kv_heads + head;
  const bool learned = a.dmc.mode == DmcMode::learned;
  float cos[kPairs], sin[kPairs];
  Lanes::load_half(a.cos + static_cast<int64_t>(t) * Lanes::kHalf + lane * kPairs, cos);
  Lanes::load_half(a.sin + static_cast<int64_t>(t) * Lanes::kHalf + lane * kPairs, sin);
  rotate_queries<kPairs>(a, t, head, cos, sin);
  Lanes k, v;
  if (a.dmc.mode == DmcMode::off) load_token(a, t, head, k, v);
  else window_average(a, t, head, table, k, v);
  Lanes turned = k.rotated(cos, sin);
  if (learned) turned.zero_last(lane);
  turned.store(a.own_k + own * Lanes::kSize, lane);
  v.store(a.own_v + own * Lanes::kSize, lane);
  const bool final = t + 1 == a.begin[sequence + 1] || a.age[own + a.kv_heads] == 0;
  if (final) store_entry<kPairs>(a, a.page_rows + table * a.max_pages, a.own_slot[own], turned, v);
}

template <int kPairs>
__global__ void __launch_bounds__(32 * kWarpsPerBlock) keep_kernel(const UpdateArgs a) {
  using Lanes = HeadLanes<kPairs>;
  const int item = blockIdx.x * kWarpsPerBlock + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (item >= a.sequences * a.kv_heads) return;
  const int sequence = a.first_sequence + item / a.kv_heads, head = item % a.kv_heads, row = a.row[sequence];
  const int begin = a.begin[sequence], end = a.begin[sequence + 1];
  if (row < 0 || end == begin) return;
  const int64_t table = static_cast<int64_t>(row) * a.kv_heads + head;
  const int window = a.dmc.window, age = a.age[static_cast<int64_t>(end - 1) * a.kv_heads + head];
  const int kept = min(min(age + 1, window), end - begin);
  for (int back = 0; back < kept; ++back) {
    const int64_t entry = table * window + (age - back) % window;
    Lanes k, v;
    load_token(a, end - 1 - back, head, k, v);
    k.store(static_cast<bf16*>(a.ring_k) + entry * Lanes::kSize, lane);
    v.store(static_cast<bf16*>(a.ring_v) + entry * Lanes::kSize, lane);
    if (lane == 0) a.ring_w[entry] = a.weight[static_cast<int64_t>(end - 1 - back) * a.kv_heads + head];
  }
}

unsigned blocks_of(int64_t items) { return static_cast<unsigned>((items + kWarpsPerBlock - 1) / kWarpsPerBlock); }

template <int kPairs>
void launch(const UpdateArgs& a, int tokens, cudaStream_t stream) {
  const int first_token = a.first_sequence;  // the sequences before have one token each
  const int64_t heads = static_cast<int64_t>(a.sequences) * a.kv_heads;
  decide_kernel<64 * kPairs><<<static_cast<unsigned>(heads), kScanThreads, 0, stream>>>(a);
  enter_kernel<kPairs><<<blocks_of(static_cast<int64_t>(tokens - first_token) * a.kv_heads), 32 * kWarpsPerBlock, 0, stream>>>(a, first_token, tokens);
  if (a.dmc.mode != DmcMode::off) keep_kernel<kPairs><<<blocks_of(heads), 32 * kWarpsPerBlock, 0, stream>>>(a);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

bool prompt_update_fits(const DmcUpdate& op) {
  const bool limited = op.dmc.mode == DmcMode::off || (op.dmc.window > 0 && op.dmc.window <= kMostWindow);
  return limited && op.weight.data && op.age.data && op.batch.sequence.data;
}

void launch_prompt_update(const UpdateArgs& args, int tokens, int pairs, cudaStream_t stream) {
  if (tokens == args.first_sequence) return;
  if (pairs == 1) return launch<1>(args, tokens, stream);
  if (pairs == 2) return launch<2>(args, tokens, stream);
  launch<4>(args, tokens, stream);
}

}  // namespace accrete
