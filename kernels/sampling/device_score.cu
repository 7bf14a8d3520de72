// log softmax of given tokens, their ranks, and the best tokens of the row: from raw logits that a cluster holds in shared memory.
#include "kernels/sampling/device_row.cuh"
#include "kernels/sampling/device_steps.h"

namespace accrete {
namespace {

struct Score {
  LogitRows rows;
  const SamplerRow* samplers;  // [R], or null: `top` says what is wanted
  const int32_t* state_row;    // [n]
  const int32_t* top;          // [n]
  const int32_t* token;        // [n]
  int32_t* scored;             // [n] or null
  float* logprob;              // [n]
  int32_t* rank;               // [n]
  int32_t* top_tokens;         // [n, kMostTopLogprobs]
  float* top_logprobs;         // [n, kMostTopLogprobs]
};

struct TokenScore {
  int32_t token;
  float logprob;
  int32_t rank;
};

struct TopOf {
  int index;          // of the row
  int count;          // at least 1, at most V and kMostTopLogprobs
  double normalizer;
};

// How many of the best a row wants; -1: nothing, not even its token's own score.
__device__ int wanted(const Score& args, int index) {
  if (args.samplers && args.state_row[index] < 0) return -1;
  if (args.token[index] < 0 || args.token[index] >= args.rows.vocabulary) return -1;
  const int count = args.samplers ? args.samplers[args.state_row[index]].logprobs : max(args.top[index], 0);
  return min(min(count, kMostTopLogprobs), args.rows.vocabulary);
}

// By one thread: all of a row's outputs but the best tokens.
__device__ void write_score(const Score& args, int index, const TokenScore& of) {
  if (args.scored) args.scored[index] = of.token;
  args.logprob[index] = of.logprob;
  args.rank[index] = of.rank;
  for (int i = 0; i < kMostTopLogprobs; ++i) args.top_tokens[int64_t{index} * kMostTopLogprobs + i] = -1;
}

// log of the sum of e^logit.
__device__ double normalizer_of(ClusterRow& cluster, const RowSlice& slice, float largest) {
  uint64_t mass = 0;
  for (int i = threadIdx.x; i < slice.count; i += kRowThreads) mass += fixed_weight(weight_exp(slice.sValue[i] - largest));
  return log(static_cast<double>(cluster.sum(mass)) * 0x1p-44) + largest;
}

// 1 + how many are better.
__device__ int32_t rank_of(ClusterRow& cluster, const RowSlice& slice, float logit, int32_t token) {
  uint64_t better = 0;
  for (int i = threadIdx.x; i < slice.count; i += kRowThreads) {
    const float other = slice.sValue[i];
    better += other > logit || (other == logit && slice.begin + i < token);
  }
  return 1 + static_cast<int32_t>(cluster.sum(better));
}

// Each block gathers its part of the best `count` tokens, then one warp of the first block orders them: each is as far back as there
// are larger ones.
__device__ void write_top(const Score& args, RowMemory& s, ClusterRow& cluster, const RowSlice& slice, const TopOf& top) {
  const ByLogit logits{slice.sValue};
  const Threshold kept = select_best(s.select, cluster, slice, logits, static_cast<uint64_t>(top.count));
  if (threadIdx.x == 0) s.best_count = 0;
  __syncthreads();
  for (int i = threadIdx.x; i < slice.count; i += kRowThreads) {
    if (!kept.keeps(logits.key(i), slice.begin + i)) continue;
    s.best[atomicAdd(&s.best_count, 1)] = uint64_t{logits.key(i)} << 32 | (0xffffffffu - static_cast<uint32_t>(slice.begin + i));
  }
  cluster_barrier();
  if (cluster.rank != 0 || threadIdx.x >= kLanes) return;
  const int lane = threadIdx.x;
  uint64_t mine = 0;  // lane i takes the i-th of all blocks' parts laid end to end
  int larger = 0, first = 0;
  for (uint32_t rank = 0; rank < cluster.size; ++rank) {
    const int held = static_cast<int>(*in_block(&s.best_count, rank));
    if (lane >= first && lane < first + held) mine = in_block(s.best, rank)[lane - first];
    first += held;
  }
  for (int other = 0; other < kLanes; ++other) larger += warp_value(mine, other) > mine;
  if (lane >= top.count) return;
  const int64_t to = static_cast<int64_t>(top.index) * kMostTopLogprobs + larger;
  args.top_tokens[to] = static_cast<int32_t>(0xffffffffu - static_cast<uint32_t>(mine));
  args.top_logprobs[to] = static_cast<float>(logit_of(mine) - top.normalizer);
}

// Grid: a cluster each of n rows.
__global__ void __launch_bounds__(kRowThreads, kRowBlocks) score_kernel(Score args) {
  RowMemory& s = *static_cast<RowMemory*>(block_memory());
  ClusterRow cluster(s.parts);
  const int index = static_cast<int>(blockIdx.x / cluster.size);
  const int count = wanted(args, index);
  if (count < 0) return;
  const int32_t token = args.token[index];
  const RowSlice slice = slice_of(s, cluster, args.rows.vocabulary);
  const bool unusable = load_slice(args.rows, index, slice);
  __syncthreads();
  const uint64_t best = best_of(cluster, slice, unusable);
  const bool first = cluster.rank == 0 && threadIdx.x == 0;
  if (token_of(best) < 0) {
    if (first) write_score(args, index, {-1, 0, 0});
  } else {
    const float logit = args.rows.data[index * args.rows.stride + token];
    const double normalizer = normalizer_of(cluster, slice, logit_of(best));
    const int32_t rank = rank_of(cluster, slice, logit, token);
    if (first) write_score(args, index, {token, static_cast<float>(logit - normalizer), rank});
    if (count > 0) write_top(args, s, cluster, slice, {index, count, normalizer});
  }
  cluster_barrier();  // until all have read what they need of this block's memory
}

void launch(const Score& arguments, int64_t n, Stream& stream) { launch_rows(score_kernel, arguments, n, stream.cuda); }

}  // namespace

void score_tokens(const SampleDevice& op, Stream& stream) {
  launch({logit_rows(op.logits), op.tables.rows, op.state_row, nullptr, op.token, nullptr, op.logprob, op.rank, op.top_tokens,
          op.top_logprobs}, op.logits.shape[0], stream);
}

void score_cuda(const ScoreDevice& op, Stream& stream) {
  if (op.logits.shape[0] == 0) return;
  CHECK(op.token && op.top && op.scored && op.logprob && op.rank && op.top_tokens && op.top_logprobs, op.logits.shape[0]);
  launch({logit_rows(op.logits), nullptr, nullptr, op.top, op.token, op.scored, op.logprob, op.rank, op.top_tokens,
          op.top_logprobs}, op.logits.shape[0], stream);
}

}  // namespace accrete
