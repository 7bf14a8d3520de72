// The update on CUDA: which kernels take which sequences. Decodes have one that is a short chain of loads (dmc_tokens.cu), prompts four that
// run over all tokens in parallel (dmc_prompt.cu) unless their window is unlimited or very long: then they go token by token.
#include <algorithm>

#include "kernels/cuda.h"
#include "kernels/dmc/dmc_prompt.cuh"
#include "kernels/dmc/dmc_tokens.cuh"

namespace accrete {
namespace {

UpdateArgs update_args(const DmcUpdate& op) {
  const CacheRef& cache = op.cache;
  UpdateArgs a{};
  a.qkv = op.qkv.as<const bf16>().data;
  a.qkv_row_bytes = static_cast<int>(op.qkv.stride[0] * static_cast<int64_t>(sizeof(bf16)));
  a.cos = op.cos.data;
  a.sin = op.sin.data;
  a.q = op.q.as<bf16>().data;
  a.own_k = op.own_k.as<bf16>().data;
  a.own_v = op.own_v.as<bf16>().data;
  a.own_slot = op.own_slot.data;
  a.weight = op.weight.data;
  a.appends = reinterpret_cast<uint32_t*>(op.appends.data);
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
  a.by_page_slots = Divisor::by(cache.page_slots);
  a.by_window = Divisor::by(std::max(op.dmc.window, 1));
  a.max_pages = static_cast<int>(cache.page_rows.shape[3]);
  a.kv_heads = static_cast<int>(op.own_k.shape[1]);
  a.group = static_cast<int>(op.q.shape[1] / op.own_k.shape[1]);
  a.per_query = 1.0f / static_cast<float>(a.group);
  a.query_pairs = Divisor::by((a.group + 1) / 2);
  a.tokens = static_cast<int>(op.batch.tokens());
  a.size = static_cast<int>(op.own_k.shape[2]);
  return a;
}

void launch(const DmcUpdate& op, cudaStream_t stream) {
  UpdateArgs a = update_args(op);
  const int decodes = static_cast<int>(op.batch.decodes), prompts = static_cast<int>(op.batch.sequences()) - decodes;
  a.sequences = decodes;
  if (decodes > 0) launch_decode_update(a, stream);
  a.first_sequence = decodes;
  a.sequences = prompts;
  if (prompts == 0 || op.batch.tokens() == decodes) return;
  if (prompt_update_fits(op)) launch_prompt_update(a, stream);
  else launch_token_update(a, stream);
}

}  // namespace

void dmc_update_cuda(const DmcUpdate& op, Stream& stream) {
  const int64_t size = op.own_k.shape[2], kv_heads = op.own_k.shape[1], query_heads = op.q.shape[1];
  CHECK(size == 64 || size == 128 || size == 256, size);
  CHECK(query_heads % kv_heads == 0, query_heads, kv_heads);
  CHECK(op.qkv.shape[1] == (query_heads + 2 * kv_heads) * size && op.qkv.stride[0] % 8 == 0, op.qkv.shape[1], op.qkv.stride[0]);
  CHECK(op.cache.pages.shape[3] == size && op.cache.slots.shape[2] == kv_heads, op.cache.pages.shape[3], op.cache.slots.shape[2]);
  CHECK(op.dmc.mode == DmcMode::off || op.cache.ring_k.data != nullptr);
  CHECK(op.dmc.mode != DmcMode::synthetic || op.synthetic_rates.shape[0] == kv_heads, op.synthetic_rates.shape[0]);
  CHECK(op.batch.decodes <= op.batch.sequences(), op.batch.decodes, op.batch.sequences());
  CHECK(op.batch.tokens() * kv_heads <= INT32_MAX && op.cache.slots.stride[0] <= INT32_MAX, op.batch.tokens(), kv_heads, op.cache.slots.stride[0]);
  CHECK(!op.appends.data || op.appends.size() >= kv_heads * 2 * ((op.batch.tokens() + 31) / 32), op.appends.size(), kv_heads, op.batch.tokens());
  launch(op, static_cast<cudaStream_t>(stream.cuda));
}

}  // namespace accrete
