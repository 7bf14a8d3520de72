// Every row's token. A row that the largest-logit kernel has looked at needs its parts compared. Any other is brought into the shared
// memory of a cluster once; edits, filters and the draw work there.
#include "kernels/sampling/device_row.cuh"
#include "kernels/sampling/device_steps.h"
#include "kernels/sampling/philox.h"

namespace accrete {
namespace {

struct Choose {
  LogitRows rows;
  SamplerTables tables;
  const int32_t* state_row;  // [n]
  const int32_t* position;   // [n]
  int32_t* token;            // [n]
  int32_t* next_ids;         // [n] or null
  float* logprob;            // [n]
  int32_t* rank;             // [n]
  int32_t* top_tokens;       // [n, kMostTopLogprobs]
  int parts;                 // of greedy rows
};

// What a draw depends on besides the logits.
struct Drawn {
  int vocabulary;
  float largest;   // of the edited logits
  double uniform;
};

struct Slot {
  int index;
  int state;  // row of the tables
  int position;
};

// By one thread of the row's cluster, once.
__device__ void finish(const Choose& args, const Slot& slot, int32_t token) {
  args.token[slot.index] = token;
  if (args.next_ids) args.next_ids[slot.index] = token;
  args.logprob[slot.index] = 0;
  args.rank[slot.index] = 0;
  for (int i = 0; i < kMostTopLogprobs; ++i) args.top_tokens[slot.index * kMostTopLogprobs + i] = -1;
  if (token < 0 || !args.tables.rows[slot.state].penalised) return;
  uint16_t& count = args.tables.counts[slot.state * args.tables.vocabulary + token];
  if (count < UINT16_MAX) ++count;
}

// By one warp.
__device__ void finish_greedy(const Choose& args, const Slot& slot) {
  const int lane = threadIdx.x % kLanes;
  const uint64_t* gParts = args.tables.greedy_parts + int64_t{slot.index} * kMostGreedyParts;
  uint64_t best = 0;
  for (int i = lane; i < args.parts; i += kLanes) best = gParts[i] > best ? gParts[i] : best;
  best = warp_largest(best);
  if (lane == 0) finish(args, slot, token_of(best));
}

// A token's edits lie together and are applied by one thread, in their order.
__device__ void apply_edits(const SamplerTables& tables, const SamplerRow& row, const Slot& slot, const RowSlice& slice) {
  const LogitEdit* gEdits = tables.edits + slot.state * tables.edit_capacity;
  for (int i = threadIdx.x; i < row.edits; i += kRowThreads) {
    const int token = gEdits[i].token;
    const int at = token - slice.begin;
    if (at < 0 || at >= slice.count || (i > 0 && gEdits[i - 1].token == token)) continue;
    float logit = slice.sValue[at];
    for (int j = i; j < row.edits && gEdits[j].token == token; ++j) {
      if (slot.position < gEdits[j].until) logit = __fadd_rn(logit, gEdits[j].addend);
    }
    slice.sValue[at] = logit;
  }
}

// Rounded step by step as in sample_cpu: nothing may be fused.
__device__ void apply_penalties(const SamplerTables& tables, const SamplerRow& row, int state, const RowSlice& slice) {
  const uint16_t* gCounts = tables.counts + state * tables.vocabulary + slice.begin;
  const uint32_t* gPrompt = tables.prompt_bits + state * ((tables.vocabulary + 31) / 32);
  const bool additive = row.frequency_penalty != 0 || row.presence_penalty != 0;
  for (int i = threadIdx.x; i < slice.count; i += kRowThreads) {
    const int id = slice.begin + i;
    const int count = gCounts[i];
    const bool in_prompt = gPrompt[id / 32] >> (id % 32) & 1;
    if (count == 0 && !in_prompt) continue;
    float logit = slice.sValue[i];
    if (row.repetition_penalty != 1) {
      logit = logit > 0 ? __fdiv_rn(logit, row.repetition_penalty) : __fmul_rn(logit, row.repetition_penalty);
    }
    if (count > 0 && additive) {
      const float penalty = __fadd_rn(__fmul_rn(row.frequency_penalty, static_cast<float>(count)), row.presence_penalty);
      logit = __fadd_rn(logit, -penalty);
    }
    slice.sValue[i] = logit;
  }
}

// Loads and edits the row; its best token.
__device__ uint64_t prepare(const Choose& args, const SamplerRow& row, const Slot& slot, ClusterRow& cluster, const RowSlice& slice) {
  const bool unusable = load_slice(args.rows, slot.index, slice);
  __syncthreads();
  if (slot.position < row.edits_until) {
    apply_edits(args.tables, row, slot, slice);
    __syncthreads();
  }
  if (row.penalised) {
    apply_penalties(args.tables, row, slot.state, slice);
    __syncthreads();
  }
  return best_of(cluster, slice, unusable);
}

// Turns the slice's logits into weights, 0 where `kept` or min-p says no. The mass of all.
__device__ uint64_t weigh(const SamplerRow& row, ClusterRow& cluster, const RowSlice& slice, float largest, const Threshold& kept) {
  uint64_t mass = 0;
  for (int i = threadIdx.x; i < slice.count; i += kRowThreads) {
    const float logit = slice.sValue[i];
    float weight = weight_exp(__fmul_rn(logit - largest, row.inverse_temperature));
    if (weight < row.min_p || !kept.keeps(order_key(logit), slice.begin + i)) weight = 0;
    slice.sValue[i] = weight;
    mass += fixed_weight(weight);
  }
  return cluster.sum(mass);  // a barrier: the weights are complete
}

struct TopP {
  float share;
  uint64_t mass;  // of the slice's weights, all blocks together
  int64_t vocabulary;

  // A token lighter than (1 - p) / V of the mass lies beyond the prefix, since all such tokens together weigh less than 1 - p. Half of
  // that, to be clear of rounding; it spares most tokens the histogram.
  __device__ float lightest() const {
    return static_cast<float>(0.5 * (1.0 - share) * 0x1p-44 * static_cast<double>(mass) / static_cast<double>(vocabulary));
  }
};

// Leaves the smallest best-first prefix of the weights that reaches its share of their mass, and 0 elsewhere. The prefix's mass.
__device__ uint64_t keep_top_p(SelectMemory& s, ClusterRow& cluster, const RowSlice& slice, const TopP& top) {
  const ByWeight weights{slice.sValue, top.lightest()};
  const Threshold kept = select_best(s, cluster, slice, weights, needed_mass(top.share, top.mass));
  uint64_t mass = 0;
  for (int i = threadIdx.x; i < slice.count; i += kRowThreads) {
    if (kept.keeps(weights.key(i), slice.begin + i)) mass += fixed_weight(slice.sValue[i]);
    else slice.sValue[i] = 0;
  }
  return cluster.sum(mass);
}

__device__ double uniform_of(uint64_t seed, int position) {
  const PhiloxBlock counter{{static_cast<uint32_t>(position), 0, 0, 0}};
  return philox_unit(philox_4x32(counter, static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32)));
}

// The drawn token in all lanes of the one warp that holds it, -1 in others.
__device__ int32_t draw(SelectMemory& s, ClusterRow& cluster, const RowSlice& slice, const SamplerRow& row, const Drawn& drawn) {
  Threshold kept;
  if (row.top_k > 0 && row.top_k < drawn.vocabulary) {
    kept = select_best(s, cluster, slice, ByLogit{slice.sValue}, static_cast<uint64_t>(row.top_k));
  }
  uint64_t mass = weigh(row, cluster, slice, drawn.largest, kept);
  if (row.top_p < 1) mass = keep_top_p(s, cluster, slice, {row.top_p, mass, drawn.vocabulary});
  const auto weight = [&](int i) { return fixed_weight(slice.sValue[i]); };
  const int found = locate(cluster, slice.count, weight, mass_at(drawn.uniform, mass));
  return found < 0 ? -1 : slice.begin + found;
}

// Grid: a cluster each of n rows.
__global__ void __launch_bounds__(kRowThreads, kRowBlocks) choose_kernel(Choose args) {
  RowMemory& s = *static_cast<RowMemory*>(block_memory());
  ClusterRow cluster(s.parts);
  const int index = static_cast<int>(blockIdx.x / cluster.size);
  const Slot slot{index, args.state_row[index], args.position[index]};
  if (slot.state < 0) return;
  const SamplerRow row = args.tables.rows[slot.state];
  if (row.plain(slot.position)) {
    if (cluster.rank == 0 && threadIdx.x < kLanes) finish_greedy(args, slot);
    return;
  }
  const RowSlice slice = slice_of(s, cluster, args.rows.vocabulary);
  const uint64_t best = prepare(args, row, slot, cluster, slice);
  if (row.greedy() || token_of(best) < 0) {
    if (cluster.rank == 0 && threadIdx.x == 0) finish(args, slot, token_of(best));
  } else {
    const Drawn drawn{args.rows.vocabulary, logit_of(best), uniform_of(row.seed, slot.position)};
    const int32_t token = draw(s.select, cluster, slice, row, drawn);
    if (token >= 0 && threadIdx.x % kLanes == 0) finish(args, slot, token);
  }
  cluster_barrier();  // until all have read what they need of this block's memory
}

}  // namespace

void choose_tokens(const SampleDevice& op, Stream& stream) {
  const int64_t n = op.logits.shape[0];
  const Choose arguments{logit_rows(op.logits), op.tables, op.state_row, op.position, op.token, op.next_ids,
                         op.logprob, op.rank, op.top_tokens, greedy_parts(n, op.logits.shape[1])};
  launch_rows(choose_kernel, arguments, n, stream.cuda);
}

}  // namespace accrete
