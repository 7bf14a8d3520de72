// Prompt attention: causal attention over compacted slots plus each token's own entry (docs/dmc.md, "Prompts in one pass"). Compute-bound:
// 4 D FLOPs for each (row, slot) pair that is read; slots come from L2 once for every tile of rows.
//
// A block takes kRows rows, row = (token, query of the group), of one sequence and KV head; a warp 16 of them. The softmax starts from
// the token's own entry, which makes the diagonal free and every row non-empty. Slots below the first token's limit need no mask; the few
// between first and last token's limits are masked by row; later ones are not read. Tiles of 64 slots are copied two ahead.
#include <cfloat>

#include "kernels/attention/attention_decode.cuh"
#include "kernels/cuda.h"
#include "kernels/mma.cuh"

namespace accrete {
namespace {

constexpr int kWarps = 8;
constexpr int kRows = 16 * kWarps;
constexpr int kThreads = 32 * kWarps;
constexpr int kTile = 64;    // slots
constexpr int kStages = 2;
constexpr float kLog2e = 1.4426950408889634f;

struct PromptArgs {
  const int32_t* row;         // [B_step]
  const int32_t* begin;       // [B_step + 1]
  const int32_t* own_slot;    // [T, Hkv]
  const int32_t* page_rows;   // [B, Hkv, max_pages] of the layer
  const bf16* pages;          // [N, 2, S, D]
  const bf16* q;              // [T, Hq, D]
  const bf16* own_k;          // [T, Hkv, D]
  const bf16* own_v;          // [T, Hkv, D]
  bf16* out;                  // [T, Hq, D]
  int first_sequence;
  int max_pages;
  int page_slots;
  int kv_heads;
  int group;
  float scale;                // log2(e) / sqrt(D)
};

// Rows of a block: tokens [token, end) of the step, `group` rows each, as many as fit kRows.
struct Block {
  int head;
  int token, tokens;
  int64_t table;  // (cache row, head) in the tables
};

// Shared tiles: rows of D elements in pieces of 16 bytes, piece i of row r at place i ^ (r % 8): ldmatrix meets no bank twice.
template <int kSize>
struct SharedTile {
  static constexpr int kPieces = kSize / 8;
  static constexpr int kBytes = kTile * kSize * 2;
  __device__ static uint32_t at(uint32_t base, int row, int piece) { return base + (row * kPieces + (piece ^ row % 8)) * 16; }
};

// Copies slots [first, first + kTile) of the head into a stage, zeros past `slots`.
template <int kSize>
__device__ void copy_tile(const PromptArgs& a, const Block& block, int first, int slots, uint32_t stage) {
  using Shared = SharedTile<kSize>;
  constexpr int kRowsAtOnce = kThreads / Shared::kPieces;
  const int piece = threadIdx.x % Shared::kPieces;
  const int32_t* ids = a.page_rows + block.table * a.max_pages;
#pragma unroll
  for (int r = 0; r < kTile; r += kRowsAtOnce) {
    const int row = r + static_cast<int>(threadIdx.x) / Shared::kPieces, slot = first + row;
    const bool there = slot < slots;
    const int64_t page = there ? max(ids[slot / a.page_slots], 0) : 0;
    const bf16* k = a.pages + (page * 2 * a.page_slots + slot % a.page_slots) * kSize + piece * 8;
    copy_async(Shared::at(stage, row, piece), k, there);
    copy_async(Shared::at(stage + Shared::kBytes, row, piece), k + static_cast<int64_t>(a.page_slots) * kSize, there);
  }
}

// A warp's 16 rows; this lane has rows lane / 4 (index 0) and + 8 (index 1).
template <int kSize>
struct Rows {
  uint32_t q[kSize / 16][4];
  float out[kSize / 8][4];
  float top[2], sum[2];  // sums of this lane's columns alone until the end
  int limit[2];          // own_slot: slots that the row sees; -1 for rows that are not there
  int64_t token[2];
  int query[2];          // of the group

  __device__ void load(const PromptArgs& a, const Block& block);
  __device__ void store(const PromptArgs& a, const Block& block);
};

template <int kSize>
__device__ void Rows<kSize>::load(const PromptArgs& a, const Block& block) {
  const int lane = threadIdx.x % 32, column = lane % 4 * 2;
  float dot[2] = {};
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int row = static_cast<int>(threadIdx.x) / 32 * 16 + lane / 4 + 8 * i;
    const bool there = row < block.tokens * a.group;
    token[i] = block.token + (there ? row / a.group : 0);
    query[i] = there ? row % a.group : 0;
    limit[i] = there ? a.own_slot[token[i] * a.kv_heads + block.head] : -1;
    const int64_t own = (token[i] * a.kv_heads + block.head) * kSize;
    const bf16* from = a.q + ((token[i] * a.kv_heads + block.head) * a.group + query[i]) * kSize + column;
#pragma unroll
    for (int d = 0; d < kSize / 8; ++d) {
      const uint32_t pair = *reinterpret_cast<const uint32_t*>(from + d * 8);
      const uint32_t key = *reinterpret_cast<const uint32_t*>(a.own_k + own + d * 8 + column);
      const uint32_t value = *reinterpret_cast<const uint32_t*>(a.own_v + own + d * 8 + column);
      q[d / 2][d % 2 * 2 + i] = pair;
      dot[i] += low_float(pair) * low_float(key) + high_float(pair) * high_float(key);
      out[d][2 * i] = low_float(value);
      out[d][2 * i + 1] = high_float(value);
    }
    dot[i] += __shfl_xor_sync(0xffffffffu, dot[i], 1);
    dot[i] += __shfl_xor_sync(0xffffffffu, dot[i], 2);
    top[i] = dot[i] * a.scale;
    sum[i] = lane % 4 == 0 ? 1.0f : 0.0f;
  }
}

template <int kSize>
__device__ void Rows<kSize>::store(const PromptArgs& a, const Block& block) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 1);
    sum[i] += __shfl_xor_sync(0xffffffffu, sum[i], 2);
    if (limit[i] < 0) continue;
    const float inverse = 1.0f / sum[i];
    bf16* to = a.out + ((token[i] * a.kv_heads + block.head) * a.group + query[i]) * kSize + threadIdx.x % 4 * 2;
#pragma unroll
    for (int d = 0; d < kSize / 8; ++d) {
      *reinterpret_cast<uint32_t*>(to + d * 8) = pack_bf16(out[d][2 * i] * inverse, out[d][2 * i + 1] * inverse);
    }
  }
}

template <int kSize>
__device__ inline void score_tile(const Rows<kSize>& rows, uint32_t keys, float (&scores)[kTile / 8][4]) {
  using Shared = SharedTile<kSize>;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) scores[n][i] = 0.0f;
  }
#pragma unroll
  for (int k = 0; k < kSize / 16; ++k) {
#pragma unroll
    for (int n = 0; n < kTile / 16; ++n) {
      uint32_t b[4];  // slots 16 n + 0..7 and + 8..15, components 16 k + 0..7 and + 8..15
      load_matrices(b, Shared::at(keys, n * 16 + lane / 16 * 8 + lane % 8, k * 2 + lane / 8 % 2));
      mma_bf16(scores[2 * n], rows.q[k], b[0], b[1]);
      mma_bf16(scores[2 * n + 1], rows.q[k], b[2], b[3]);
    }
  }
}

// Scores become weights; earlier shares are scaled to the new maxima.
template <int kSize>
__device__ inline void weigh_tile(Rows<kSize>& rows, float (&scores)[kTile / 8][4], float scale) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    float top = -FLT_MAX;
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) top = fmaxf(top, fmaxf(scores[n][2 * i], scores[n][2 * i + 1]));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 1));
    top = fmaxf(top, __shfl_xor_sync(0xffffffffu, top, 2));
    top = fmaxf(rows.top[i], top * scale);
    const float factor = exp2f(rows.top[i] - top);
    rows.top[i] = top;
    float sum = rows.sum[i] * factor;
#pragma unroll
    for (int n = 0; n < kTile / 8; ++n) {
      scores[n][2 * i] = exp2f(scores[n][2 * i] * scale - top);
      scores[n][2 * i + 1] = exp2f(scores[n][2 * i + 1] * scale - top);
      sum += scores[n][2 * i] + scores[n][2 * i + 1];
    }
    rows.sum[i] = sum;
#pragma unroll
    for (int d = 0; d < kSize / 8; ++d) rows.out[d][2 * i] *= factor, rows.out[d][2 * i + 1] *= factor;
  }
}

template <int kSize>
__device__ inline void add_tile(Rows<kSize>& rows, const float (&weights)[kTile / 8][4], uint32_t values) {
  using Shared = SharedTile<kSize>;
  const int lane = threadIdx.x % 32;
#pragma unroll
  for (int n = 0; n < kTile / 16; ++n) {
    const uint32_t a[4] = {pack_bf16(weights[2 * n][0], weights[2 * n][1]), pack_bf16(weights[2 * n][2], weights[2 * n][3]),
                           pack_bf16(weights[2 * n + 1][0], weights[2 * n + 1][1]), pack_bf16(weights[2 * n + 1][2], weights[2 * n + 1][3])};
#pragma unroll
    for (int d = 0; d < kSize / 16; ++d) {
      uint32_t b[4];  // slots 16 n + 0..7, + 8..15 of components 16 d + 0..7, then of + 8..15
      load_matrices_transposed(b, Shared::at(values, n * 16 + lane / 8 % 2 * 8 + lane % 8, d * 2 + lane / 16));
      mma_bf16(rows.out[2 * d], a, b[0], b[1]);
      mma_bf16(rows.out[2 * d + 1], a, b[2], b[3]);
    }
  }
}

template <int kSize>
__device__ inline void mask_tile(const Rows<kSize>& rows, int first, float (&scores)[kTile / 8][4]) {
  const int column = first + threadIdx.x % 4 * 2;
#pragma unroll
  for (int n = 0; n < kTile / 8; ++n) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      if (column + n * 8 + i % 2 >= rows.limit[i / 2]) scores[n][i] = -FLT_MAX;
    }
  }
}

// Grid: (row tiles of the longest sequence, KV heads, sequences); the longest work first.
template <int kSize>
__global__ void __launch_bounds__(kThreads, 1) prompt_kernel(const PromptArgs a) {
  using Shared = SharedTile<kSize>;
  extern __shared__ __align__(128) uint8_t sTiles[];
  const int sequence = a.first_sequence + blockIdx.z, each = kRows / a.group, tile = gridDim.x - 1 - blockIdx.x;
  const int first_token = a.begin[sequence], tokens = a.begin[sequence + 1] - first_token;
  if (tile * each >= tokens || a.row[sequence] < 0) return;
  Block block;
  block.head = blockIdx.y;
  block.token = first_token + tile * each;
  block.tokens = min(each, tokens - tile * each);
  block.table = static_cast<int64_t>(a.row[sequence]) * a.kv_heads + block.head;
  // Limits do not decrease with the token.
  const int unmasked = a.own_slot[static_cast<int64_t>(block.token) * a.kv_heads + block.head];
  const int slots = a.own_slot[static_cast<int64_t>(block.token + block.tokens - 1) * a.kv_heads + block.head];
  const uint32_t shared = static_cast<uint32_t>(__cvta_generic_to_shared(sTiles));
  constexpr uint32_t kStageBytes = 2 * Shared::kBytes;
  const int tiles = (slots + kTile - 1) / kTile;
  if (tiles > 0) copy_tile<kSize>(a, block, 0, slots, shared);
  commit_copies();
  Rows<kSize> rows;
  rows.load(a, block);
  for (int i = 0; i < tiles; ++i) {
    if (i + 1 < tiles) copy_tile<kSize>(a, block, (i + 1) * kTile, slots, shared + (i + 1) % kStages * kStageBytes);
    commit_copies();
    wait_copies<1>();
    __syncthreads();
    const uint32_t stage = shared + i % kStages * kStageBytes;
    float scores[kTile / 8][4];
    score_tile<kSize>(rows, stage, scores);
    if ((i + 1) * kTile > unmasked) mask_tile<kSize>(rows, i * kTile, scores);
    weigh_tile<kSize>(rows, scores, a.scale);
    add_tile<kSize>(rows, scores, stage + Shared::kBytes);
    __syncthreads();  // the stage is free for the copy after next
  }
  rows.store(a, block);
}

template <int kSize>
void launch(const PromptArgs& a, dim3 grid, cudaStream_t stream) {
  constexpr int kBytes = kStages * 2 * SharedTile<kSize>::kBytes;
  static const cudaError_t raised = cudaFuncSetAttribute(prompt_kernel<kSize>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  ACCRETE_CUDA_CHECK(raised);
  prompt_kernel<kSize><<<grid, kThreads, kBytes, stream>>>(a);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void launch_prompt_attention(const Attention& op, cudaStream_t stream) {
  PromptArgs a{};
  a.row = op.batch.row.data;
  a.begin = op.batch.token_begin.data;
  a.own_slot = op.own_slot.data;
  a.page_rows = op.cache.page_rows.data + op.layer * op.cache.page_rows.stride[0];
  a.pages = op.cache.pages.as<bf16>().data;
  a.q = op.q.as<bf16>().data;
  a.own_k = op.own_k.as<bf16>().data;
  a.own_v = op.own_v.as<bf16>().data;
  a.out = op.out.as<bf16>().data;
  a.first_sequence = static_cast<int>(op.batch.decodes);
  a.max_pages = static_cast<int>(op.cache.page_rows.shape[3]);
  a.page_slots = op.cache.page_slots;
  a.kv_heads = static_cast<int>(op.own_k.shape[1]);
  a.group = static_cast<int>(op.q.shape[1] / op.own_k.shape[1]);
  const int size = static_cast<int>(op.q.shape[2]), each = kRows / a.group;
  a.scale = kLog2e / sqrtf(static_cast<float>(size));
  const int64_t longest = op.batch.most_tokens, sequences = op.batch.sequences() - op.batch.decodes;
  if (sequences == 0 || longest == 0) return;
  CHECK(sequences <= 65535 && a.kv_heads <= 65535 && a.group <= kRows, sequences, a.kv_heads, a.group);
  const dim3 grid(static_cast<unsigned>((longest + each - 1) / each), a.kv_heads, static_cast<unsigned>(sequences));
  if (size == 64) launch<64>(a, grid, stream);
  else launch<128>(a, grid, stream);
}

void attention_cuda(const Attention& op, Stream& stream) {
  const int64_t size = op.q.shape[2], kv_heads = op.own_k.shape[1];
  CHECK((size == 64 || size == 128) && op.q.shape[1] % kv_heads == 0, size, op.q.shape[1], kv_heads);
  CHECK(op.cache.page_slots % kTileSlots == 0, op.cache.page_slots);
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (op.batch.decodes > 0) {
    CHECK(op.plan != nullptr && op.plan->shape.head_size == size && op.plan->shape.kv_heads == kv_heads, size, kv_heads);
    launch_decode_attention(op, cuda);
  }
  launch_prompt_attention(op, cuda);
}

}  // namespace accrete
