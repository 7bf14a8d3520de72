#include "worker/model/llama_weights.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <cstdlib>
#include <new>

#include "worker/model/shard_reader.h"

namespace accrete::worker {

namespace {

using parallel::Range;
using parallel::ShardSpec;

// Offsets of a shard's tensors in the block, and their sizes.
struct LayerPlan {
  int64_t attention_norm, qkv, output, mlp_norm, gate_up, down;
};

struct Planner {
  const ModelConfig& config;
  const ShardSpec& shard;
  DType dtype;
  ShardReader& reader;

  int64_t head_rows(const Range& heads) const { return heads.size() * config.head_size; }

  ShardReader::Part rows(const std::string& name, const Range& range, int64_t all_rows, int64_t columns) const {
    return {name, {range.begin, range.end, 0, columns}, {all_rows, columns}};
  }
  ShardReader::Part columns(const std::string& name, const Range& range, int64_t all_rows, int64_t all_columns) const {
    return {name, {0, all_rows, range.begin, range.end}, {all_rows, all_columns}};
  }
  ShardReader::Part heads(const std::string& name, const Range& range, int64_t all_heads) const {
    const int64_t size = config.head_size;
    return rows(name, {range.begin * size, range.end * size}, all_heads * size, config.hidden);
  }
  int64_t norm(const std::string& name) const { return reader.add({rows(name, {0, 1}, 1, config.hidden)}, DType::f32); }
  int64_t vocabulary(const std::string& name) const {
    return reader.add({rows(name, shard.vocab, config.vocab, config.hidden)}, dtype);
  }

  LayerPlan layer(int64_t index) const {
    const std::string prefix = fmt::format("model.layers.{}.", index);
    const std::string attention = prefix + "self_attn.";
    const std::string mlp = prefix + "mlp.";
    const int64_t hidden = config.hidden;
    const int64_t size = config.head_size;
    const Range query_columns{shard.query_heads.begin * size, shard.query_heads.end * size};
    LayerPlan plan;
    plan.attention_norm = norm(prefix + "input_layernorm.weight");
    plan.qkv = reader.add({heads(attention + "q_proj.weight", shard.query_heads, config.query_heads),
                           heads(attention + "k_proj.weight", shard.kv_heads, config.kv_heads),
                           heads(attention + "v_proj.weight", shard.kv_heads, config.kv_heads)},
                          dtype);
    plan.output =
        reader.add({columns(attention + "o_proj.weight", query_columns, hidden, config.query_heads * size)}, dtype);
    plan.mlp_norm = norm(prefix + "post_attention_layernorm.weight");
    plan.gate_up = reader.add({rows(mlp + "gate_proj.weight", shard.mlp, config.mlp, hidden),
                               rows(mlp + "up_proj.weight", shard.mlp, config.mlp, hidden)},
                              dtype);
    plan.down = reader.add({columns(mlp + "down_proj.weight", shard.mlp, hidden, config.mlp)}, dtype);
    return plan;
  }
};

template <int N>
AnyView<N> view_of(std::byte* data, DType dtype, std::array<int64_t, N> shape) {
  AnyView<N> view;
  view.data = data;
  view.dtype = dtype;
  view.shape = shape;
  view.stride[N - 1] = 1;
  if constexpr (N == 2) view.stride[0] = shape[1];
  return view;
}

// Large pages where the kernel has them: a decode step walks all of this memory.
std::byte* allocate(int64_t bytes) {
  constexpr size_t kHugePage = 2 << 20;
  const size_t rounded = (static_cast<size_t>(bytes) + kHugePage - 1) / kHugePage * kHugePage;
  void* memory = std::aligned_alloc(kHugePage, rounded);
  if (!memory) throw std::bad_alloc();
  madvise(memory, rounded, MADV_HUGEPAGE);  // a hint: refusal changes nothing but speed
  return static_cast<std::byte*>(memory);
}

}  // namespace

void LlamaWeights::Free::operator()(std::byte* memory) const {
  std::free(memory);
}

LlamaWeights::LlamaWeights(const TensorSource& source, const ShardSpec& shard, DType dtype, ThreadPool& pool,
                           const std::function<void(int64_t, int64_t)>& progress) {
  const ModelConfig& config = source.config();
  ShardReader reader(source);
  const Planner planner{config, shard, dtype, reader};
  const std::string embedding_name = "model.embed_tokens.weight";
  const bool share = config.tied_embeddings && shard.first_stage && shard.last_stage;
  int64_t embedding = 0, final_norm = 0, logit_weights = 0;
  std::vector<LayerPlan> plans;
  if (shard.first_stage) embedding = planner.vocabulary(embedding_name);
  for (int64_t index = shard.layers.begin; index < shard.layers.end; ++index) plans.push_back(planner.layer(index));
  if (shard.last_stage) {
    final_norm = planner.norm("model.norm.weight");
    logit_weights = share ? embedding : planner.vocabulary(config.tied_embeddings ? embedding_name : "lm_head.weight");
  }

  bytes_ = reader.bytes();
  memory_.reset(allocate(bytes_));
  std::byte* block = memory_.get();
  reader.read(block, pool, progress);

  const int64_t hidden = config.hidden;
  const int64_t query_rows = planner.head_rows(shard.query_heads);
  const int64_t qkv_rows = query_rows + 2 * planner.head_rows(shard.kv_heads);
  if (shard.first_stage) embedding_ = view_of<2>(block + embedding, dtype, {shard.vocab.size(), hidden});
  if (shard.last_stage) {
    final_norm_ = view_of<1>(block + final_norm, DType::f32, {hidden});
    logit_weights_ = view_of<2>(block + logit_weights, dtype, {shard.vocab.size(), hidden});
  }
  for (const LayerPlan& plan : plans) {
    layers_.push_back({view_of<1>(block + plan.attention_norm, DType::f32, {hidden}),
                       view_of<2>(block + plan.qkv, dtype, {qkv_rows, hidden}),
                       view_of<2>(block + plan.output, dtype, {hidden, query_rows}),
                       view_of<1>(block + plan.mlp_norm, DType::f32, {hidden}),
                       view_of<2>(block + plan.gate_up, dtype, {2 * shard.mlp.size(), hidden}),
                       view_of<2>(block + plan.down, dtype, {hidden, shard.mlp.size()})});
  }
}

}  // namespace accrete::worker
