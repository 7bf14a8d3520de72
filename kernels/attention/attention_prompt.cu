// Prompt attention: causal attention over compacted slots plus each token's own entry (docs/dmc.md, "Prompts in one pass"). Compute-bound:
// 4 D FLOPs for each (row, slot) pair that is read; slots come from L2 once for every item of 128 rows.
//
// A block stays on its multiprocessor and takes item after item (prompt_items.cuh): one warp copies (prompt_copies.cuh), two warpgroups of 64
// rows each compute (prompt_consumer.cuh). The softmax starts from the token's own entry, which makes the diagonal free and every row
// non-empty. Slots below the first row's limit need no mask; the few between first and last row's limits are masked by row; later ones are
// not read. Products take bf16 and give f32; weights are rounded to bf16 before they meet the values, sums of weights are not.
#include "kernels/attention/attention_decode.cuh"
#include "kernels/attention/prompt_consumer.cuh"
#include "kernels/attention/prompt_share.h"
#include "kernels/cuda.h"
#include "kernels/dependent_launch.cuh"
#include "kernels/device/tensor_map.h"

namespace accrete {
namespace {

constexpr float kLog2e = 1.4426950408889634f;
static_assert(kRows == kPromptItemRows && kTile == kPromptTileSlots);

template <int kSize>
__global__ void __launch_bounds__(kPromptThreads, 1) prompt_kernel(const __grid_constant__ PromptArgs a) {
  constexpr int kCopyRegisters = 40, kComputeRegisters = 232;  // of the 168 that each thread begins with
  extern __shared__ __align__(1024) uint8_t sMemory[];
  auto& shared = *reinterpret_cast<PromptShared<kSize>*>(sMemory);
  if (threadIdx.x == 0) {
    for (const CUtensorMap* map : {&a.pages, &a.q, &a.own_k, &a.own_v}) prefetch_map(*map);
    shared.init_barriers();
  }
  wait_for_previous();
  if (a.beside_decodes) launch_next();
  shared.order.sort(a);
  const int warpgroup = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / (32 * kGroupWarps), 0);
  if (warpgroup == 0) {
    give_registers<kCopyRegisters>();
    const int warp = __shfl_sync(kAllLanes, static_cast<int>(threadIdx.x) / 32, 0);
    if (warp == 0) PromptCopies<kSize>(a, shared).run();
    if (warp == 1) PromptClaims<kSize>(a, shared).run();
  } else {
    take_registers<kComputeRegisters>();
    PromptConsumer<kSize>(a, shared, warpgroup - 1).run();
  }
}

// Rows of `size` elements of heads side by side, boxes of 64 elements of `queries` heads of `tokens` tokens.
CUtensorMap rows_map(const AnyView<3>& rows, int queries, int tokens) {
  const auto size = static_cast<uint64_t>(rows.shape[2]), width = static_cast<uint64_t>(rows.shape[1]) * size;
  TensorBoxes boxes;
  boxes.data = rows.as<bf16>().data;
  boxes.size = {64, static_cast<uint64_t>(queries), width / 64, static_cast<uint64_t>(rows.shape[0])};
  boxes.step = {size * 2, 128, width * 2};
  boxes.box = {64, static_cast<uint32_t>(queries), 1, static_cast<uint32_t>(tokens)};
  return tensor_map(boxes);
}

// Boxes of kBoxSlots keys or values of a page.
CUtensorMap pages_map(const AnyView<4>& pages) {
  const auto size = static_cast<uint64_t>(pages.shape[3]);
  TensorBoxes boxes;
  boxes.data = pages.as<bf16>().data;
  boxes.size = {64, 8, size / 64, static_cast<uint64_t>(pages.shape[0]) * 2 * pages.shape[2] / 8};
  boxes.step = {size * 2, 128, size * 16};
  boxes.box = {64, 8, static_cast<uint32_t>(size) / 64, kBoxSlots / 8};
  return tensor_map(boxes);
}

PromptArgs prompt_args(const Attention& op) {
  PromptArgs a{};
  a.kv_heads = static_cast<int>(op.own_k.shape[1]);
  a.group = static_cast<int>(op.q.shape[1] / op.own_k.shape[1]);
  CHECK(a.group <= kPartRows, a.group);
  a.part_tokens = kPartRows / a.group;
  a.item_tokens = kRowGroups * a.part_tokens;
  a.pages = pages_map(op.cache.pages);
  a.q = rows_map(op.q, a.group, a.part_tokens);
  a.own_k = rows_map(op.own_k, 1, a.item_tokens);
  a.own_v = rows_map(op.own_v, 1, a.item_tokens);
  a.row = op.batch.row.data;
  a.begin = op.batch.token_begin.data;
  a.own_slot = op.own_slot.data;
  a.slots = op.cache.slots.data + op.layer * op.cache.slots.stride[0];
  a.page_rows = op.cache.page_rows.data + op.layer * op.cache.page_rows.stride[0];
  a.out = op.out.as<bf16>().data;
  a.claims = op.plan->claims;
  a.first_sequence = static_cast<int>(op.batch.decodes);
  a.sequences = static_cast<int>(op.batch.sequences() - op.batch.decodes);
  a.max_pages = static_cast<int>(op.cache.page_rows.shape[3]);
  a.page_slots = op.cache.page_slots;
  a.page_blocks = static_cast<int>(op.cache.pages.shape[0] * 2 * a.page_slots / 8);
  a.scale = kLog2e / sqrtf(static_cast<float>(op.q.shape[2]));
  a.beside_decodes = op.batch.prompt_share > 0;
  return a;
}

template <int kSize>
void launch(const PromptArgs& a, int blocks, cudaStream_t stream) {
  constexpr int kBytes = sizeof(PromptShared<kSize>);
  // At every launch: the attribute is the device's, and threads of one process may have a device each.
  ACCRETE_CUDA_CHECK(cudaFuncSetAttribute(prompt_kernel<kSize>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes));
  launch_dependent(prompt_kernel<kSize>, {dim3(static_cast<unsigned>(blocks)), kPromptThreads, kBytes, stream}, a);
}

}  // namespace

void launch_prompt_attention(const Attention& op, cudaStream_t stream) {
  const int64_t sequences = op.batch.sequences() - op.batch.decodes, tokens = op.batch.tokens() - op.batch.decodes;
  if (sequences == 0 || tokens == 0) return;
  const PromptArgs a = prompt_args(op);
  const int64_t items = (tokens / a.item_tokens + sequences) * a.kv_heads;  // at most
  const int most = op.batch.prompt_share > 0 ? op.batch.prompt_share : op.plan->shape.multiprocessors;
  const int blocks = static_cast<int>(std::min<int64_t>(items, most));
  if (op.q.shape[2] == 64) launch<64>(a, blocks, stream);
  else launch<128>(a, blocks, stream);
}

void attention_cuda(const Attention& op, Stream& stream) {
  const int64_t size = op.q.shape[2], kv_heads = op.own_k.shape[1];
  CHECK((size == 64 || size == 128) && op.q.shape[1] % kv_heads == 0, size, op.q.shape[1], kv_heads);
  CHECK(op.cache.page_slots % kTileSlots == 0, op.cache.page_slots);
  CHECK(op.plan != nullptr && op.plan->shape.head_size == size && op.plan->shape.kv_heads == kv_heads, size, kv_heads);
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  CHECK(op.batch.prompt_share < op.plan->shape.multiprocessors, op.batch.prompt_share);
  // A block of prompts needs a multiprocessor to itself, which it finds only before decodes have spread over all of them.
  if (op.batch.prompt_share > 0) launch_prompt_attention(op, cuda);
  if (op.batch.decodes > 0) launch_decode_attention(op, cuda);
  if (op.batch.prompt_share == 0) launch_prompt_attention(op, cuda);
}

}  // namespace accrete
