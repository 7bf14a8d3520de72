// The update on CUDA, token by token: a warp takes one sequence's tokens through one KV head. Decode steps are this kernel with one
// token a sequence; prompts take the parallel kernels of dmc_prompt.cu unless their window is unlimited.
//
// Decode, for each sequence and KV head, D = 128, G = 1: reads 768 B of qkv, 512 B of angles (shared through L2) and the ring entries of
// the open segment (514 B each), writes 256 B of q, a ring entry, and 512 B of page. Everything is one access of 128 B a warp.
#include "kernels/cuda.h"
#include "kernels/dmc/dmc_prompt.cuh"
#include "kernels/dmc/update_head.cuh"

namespace accrete {
namespace {

constexpr int kWarpsPerBlock = 4;

// The averages of the open slot after a token, and the state that makes them.
template <int kPairs>
struct OpenSlot {
  using Lanes = HeadLanes<kPairs>;
  static constexpr int kSize = Lanes::kSize;

  __device__ OpenSlot(const UpdateArgs& a, int64_t table) : window(a.dmc.window) {
    const int64_t entries = window > 0 ? window : 1;
    ring_k = static_cast<bf16*>(a.ring_k) + table * entries * kSize;
    ring_v = static_cast<bf16*>(a.ring_v) + table * entries * kSize;
    sum_k = static_cast<float*>(a.ring_k) + table * kSize;
    sum_v = static_cast<float*>(a.ring_v) + table * kSize;
    ring_w = a.ring_w + table * entries;
  }

  // Adds the token that is number `age` of its segment; k and v become the slot's averages. Sums run from the oldest entry to the
  // newest, as on the CPU.
  __device__ void add(Lanes& k, Lanes& v, float weight, int age) {
    if (window > 0) add_windowed(k, v, weight, age);
    else add_running(k, v, weight, age);
  }

  __device__ void add_windowed(Lanes& k, Lanes& v, float weight, int age) {
    const int lane = threadIdx.x % 32;
    const int newest = age % window, older = min(age, window - 1);
    Lanes mean_k{}, mean_v{};
    float total = 0.0f;
#pragma unroll 4
    for (int back = older; back >= 1; --back) {
      const int entry = newest >= back ? newest - back : newest - back + window;
      const float w = ring_w[entry];
      mean_k.add_scaled(w, Lanes::load(ring_k + entry * kSize, lane));
      mean_v.add_scaled(w, Lanes::load(ring_v + entry * kSize, lane));
      total += w;
    }
    k.store(ring_k + newest * kSize, lane);
    v.store(ring_v + newest * kSize, lane);
    __syncwarp();  // every lane has read its weights
    if (lane == 0) ring_w[newest] = weight;
    __syncwarp();
    if (older == 0) return;
    mean_k.add_scaled(weight, k);
    mean_v.add_scaled(weight, v);
    total += weight;
    mean_k.scale(1.0f / total);
    mean_v.scale(1.0f / total);
    k = mean_k;
    v = mean_v;
  }

  __device__ void add_running(Lanes& k, Lanes& v, float weight, int age) {
    const int lane = threadIdx.x % 32;
    Lanes total_k{}, total_v{};
    float total = 0.0f;
    if (age > 0) {
      total_k = Lanes::load(sum_k, lane);
      total_v = Lanes::load(sum_v, lane);
      total = *ring_w;
    }
    total_k.add_scaled(weight, k);
    total_v.add_scaled(weight, v);
    total += weight;
    total_k.store(sum_k, lane);
    total_v.store(sum_v, lane);
    __syncwarp();
    if (lane == 0) *ring_w = total;
    __syncwarp();
    total_k.scale(1.0f / total);
    total_v.scale(1.0f / total);
    k = total_k;
    v = total_v;
  }

  int window;
  bf16* ring_k;
  bf16* ring_v;
  float* sum_k;
  float* sum_v;
  float* ring_w;
};

// One more slot; false when it needs a page and there is none. Lane 0 takes it for the warp.
__device__ bool open_slot(const UpdateArgs& a, int32_t* pages, int slots) {
  if (slots % a.page_slots != 0) return true;
  const int index = slots / a.page_slots;
  int32_t page = kNoPage;
  if (threadIdx.x % 32 == 0) {
    if (index < a.max_pages) page = take_page(a.pool);
    else *a.pool.exhausted = 1;
    if (page != kNoPage) pages[index] = page;
  }
  __syncwarp();  // the entry is there for the lanes that store through it
  return __shfl_sync(kAllLanes, page, 0) != kNoPage;
}

// kDecode: one token a sequence, own entries not written out.
template <int kPairs, bool kDecode>
__global__ void __launch_bounds__(32 * kWarpsPerBlock) update_tokens_kernel(const UpdateArgs a) {
  using Lanes = HeadLanes<kPairs>;
  constexpr int kSize = Lanes::kSize, kHalf = Lanes::kHalf;
  const int item = blockIdx.x * kWarpsPerBlock + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (item >= a.sequences * a.kv_heads) return;
  const int sequence = a.first_sequence + item / a.kv_heads, head = item % a.kv_heads;
  const int row = a.row[sequence];
  if (row < 0) return;
  const int64_t table = static_cast<int64_t>(row) * a.kv_heads + head;
  int32_t* pages = a.page_rows + table * a.max_pages;
  const bool dmc = a.dmc.mode != DmcMode::off, learned = a.dmc.mode == DmcMode::learned;
  int slots = a.slots[table], segment = dmc ? a.segment[table] : 0;
  __syncwarp();  // all lanes have read the counts that lane 0 writes
  const int begin = a.begin[sequence], end = kDecode ? begin + 1 : a.begin[sequence + 1];
  Lanes before_k{}, before_v{};  // the entry of the token before, for when its segment turns out to end with it
  for (int t = begin; t < end; ++t) {
    float cos[kPairs], sin[kPairs];
    Lanes::load_half(a.cos + static_cast<int64_t>(t) * kHalf + lane * kPairs, cos);
    Lanes::load_half(a.sin + static_cast<int64_t>(t) * kHalf + lane * kPairs, sin);
    const auto vectors = token_vectors<kSize>(a, t, head);
    Lanes k = Lanes::load(vectors.k, lane), v = Lanes::load(vectors.v, lane);
    const float importance = rotate_queries<kPairs>(a, t, head, cos, sin);
    const Decision decision = decide_token(a, sequence, head, t, k.last(), importance);
    if (!decision.accumulate || slots == 0 || a.position[t] == 0) {
      if (t > begin) store_entry<kPairs>(a, pages, slots - 1, before_k, before_v);
      if (open_slot(a, pages, slots)) {
        ++slots;
        segment = 0;
      }
    }
    if (learned) k.zero_last(lane);
    if (dmc) OpenSlot<kPairs>(a, table).add(k, v, decision.weight, segment++);
    before_k = k.rotated(cos, sin);
    before_v = v;
    if (learned) before_k.zero_last(lane);
    const int64_t own = static_cast<int64_t>(t) * a.kv_heads + head;
    if (lane == 0) a.own_slot[own] = max(slots - 1, 0);
    if (!kDecode) {
      before_k.store(a.own_k + own * kSize, lane);
      before_v.store(a.own_v + own * kSize, lane);
    }
  }
  if (end > begin) store_entry<kPairs>(a, pages, slots - 1, before_k, before_v);
  if (lane != 0) return;
  a.slots[table] = slots;
  if (dmc) a.segment[table] = segment;
}

UpdateArgs update_args(const DmcUpdate& op) {
  const CacheRef& cache = op.cache;
  UpdateArgs a{};
  a.qkv = op.qkv.as<const bf16>().data;
  a.qkv_stride = op.qkv.stride[0];
  a.cos = op.cos.data;
  a.sin = op.sin.data;
  a.q = op.q.as<bf16>().data;
  a.own_k = op.own_k.as<bf16>().data;
  a.own_v = op.own_v.as<bf16>().data;
  a.own_slot = op.own_slot.data;
  a.weight = op.weight.data;
  a.age = op.age.data;
  a.rates = op.synthetic_rates.data;
  a.row = op.batch.row.data;
  a.begin = op.batch.token_begin.data;
  a.position = op.batch.position.data;
  a.key = op.batch.sequence_key.data;
  a.sequence = op.batch.sequence.data;
  a.pages = cache.pages.as<bf16>().data;
  a.slots = cache.slots.data + op.layer * cache.slots.stride[0];
  a.page_rows = cache.page_rows.data + op.layer * cache.page_rows.stride[0];
  if (op.dmc.mode != DmcMode::off) {
    const bool sums = op.dmc.window == 0;
    CHECK(cache.ring_k.dtype == (sums ? DType::f32 : DType::bf16), name_of(cache.ring_k.dtype), op.dmc.window);
    a.segment = cache.segment.data + op.layer * cache.segment.stride[0];
    const int64_t bytes = op.layer * cache.ring_k.stride[0] * static_cast<int64_t>(size_of(cache.ring_k.dtype));
    a.ring_k = static_cast<char*>(cache.ring_k.data) + bytes;
    a.ring_v = static_cast<char*>(cache.ring_v.data) + bytes;
    a.ring_w = cache.ring_w.data + op.layer * cache.ring_w.stride[0];
  }
  a.pool = cache.pool;
  a.dmc = op.dmc;
  a.layer = op.dmc.layer_begin + op.layer;
  a.page_slots = cache.page_slots;
  a.max_pages = static_cast<int>(cache.page_rows.shape[3]);
  a.kv_heads = static_cast<int>(op.own_k.shape[1]);
  a.group = static_cast<int>(op.q.shape[1] / op.own_k.shape[1]);
  return a;
}

template <int kPairs, bool kDecode>
void launch_tokens(UpdateArgs a, int first, int sequences, cudaStream_t stream) {
  if (sequences == 0) return;
  a.first_sequence = first;
  a.sequences = sequences;
  const int blocks = (sequences * a.kv_heads + kWarpsPerBlock - 1) / kWarpsPerBlock;
  update_tokens_kernel<kPairs, kDecode><<<blocks, 32 * kWarpsPerBlock, 0, stream>>>(a);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

template <int kPairs>
void launch(const DmcUpdate& op, cudaStream_t stream) {
  const UpdateArgs a = update_args(op);
  const int decodes = static_cast<int>(op.batch.decodes), prompts = static_cast<int>(op.batch.sequences()) - decodes;
  launch_tokens<kPairs, true>(a, 0, decodes, stream);
  if (prompts == 0) return;
  if (!prompt_update_fits(op)) return launch_tokens<kPairs, false>(a, decodes, prompts, stream);
  UpdateArgs rest = a;
  rest.first_sequence = decodes;
  rest.sequences = prompts;
  launch_prompt_update(rest, static_cast<int>(op.batch.tokens()), kPairs, stream);
}

}  // namespace

void dmc_update_cuda(const DmcUpdate& op, Stream& stream) {
  const int64_t size = op.own_k.shape[2], kv_heads = op.own_k.shape[1], query_heads = op.q.shape[1];
  CHECK(query_heads % kv_heads == 0, query_heads, kv_heads);
  CHECK(op.qkv.shape[1] == (query_heads + 2 * kv_heads) * size && op.qkv.stride[0] % 8 == 0, op.qkv.shape[1], op.qkv.stride[0]);
  CHECK(op.cache.pages.shape[3] == size && op.cache.slots.shape[2] == kv_heads, op.cache.pages.shape[3], op.cache.slots.shape[2]);
  CHECK(op.dmc.mode == DmcMode::off || op.cache.ring_k.data != nullptr);
  CHECK(op.dmc.mode != DmcMode::synthetic || op.synthetic_rates.shape[0] == kv_heads, op.synthetic_rates.shape[0]);
  CHECK(op.batch.decodes <= op.batch.sequences(), op.batch.decodes, op.batch.sequences());
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (size == 64) return launch<1>(op, cuda);
  if (size == 128) return launch<2>(op, cuda);
  CHECK(size == 256, size);
  launch<4>(op, cuda);
}

}  // namespace accrete
