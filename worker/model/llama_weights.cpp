#include "worker/model/llama_weights.h"

#include <fmt/format.h>

#include "worker/model/shard_reader.h"

namespace accrete::worker {

namespace {

using parallel::Range;
using parallel::ShardSpec;

// Where a matrix lies in the block.
struct MatrixPlan {
  int64_t weights = 0, scales = 0;
  DType dtype = DType::f32;
  int64_t rows = 0, columns = 0;
};

struct LayerPlan {
  int64_t attention_norm = 0, mlp_norm = 0;
  MatrixPlan qkv, output, gate_up, down;
};

struct Planner {
  const ModelConfig& config;
  const ShardSpec& shard;
  WeightFormat format;
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
    return reader.add({rows(name, shard.vocab, config.vocab, config.hidden)}, format.dtype, padded(shard.vocab.size()));
  }
  static int64_t padded(int64_t rows) { return (rows + 15) / 16 * 16; }
  MatrixPlan matrix(const std::vector<ShardReader::Part>& parts) const {
    MatrixPlan plan;
    for (const ShardReader::Part& part : parts) plan.rows += part.slice.rows();
    plan.columns = parts[0].slice.columns();
    plan.dtype = format.fp8 ? DType::fp8 : format.dtype;
    if (!format.fp8) {
      plan.weights = reader.add(parts, format.dtype);
      return plan;
    }
    const ShardReader::Fp8Offsets offsets = reader.add_fp8(parts);
    plan.weights = offsets.weights;
    plan.scales = offsets.scales;
    return plan;
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
    plan.qkv = matrix({heads(attention + "q_proj.weight", shard.query_heads, config.query_heads),
                       heads(attention + "k_proj.weight", shard.kv_heads, config.kv_heads),
                       heads(attention + "v_proj.weight", shard.kv_heads, config.kv_heads)});
    plan.output = matrix({columns(attention + "o_proj.weight", query_columns, hidden, config.query_heads * size)});
    plan.mlp_norm = norm(prefix + "post_attention_layernorm.weight");
    plan.gate_up = matrix({rows(mlp + "gate_proj.weight", shard.mlp, config.mlp, hidden),
                           rows(mlp + "up_proj.weight", shard.mlp, config.mlp, hidden)});
    plan.down = matrix({columns(mlp + "down_proj.weight", shard.mlp, hidden, config.mlp)});
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

WeightMatrix matrix_of(std::byte* block, const MatrixPlan& plan) {
  WeightMatrix matrix;
  matrix.w = view_of<2>(block + plan.weights, plan.dtype, {plan.rows, plan.columns});
  if (plan.dtype == DType::fp8) matrix.scale = View<const float, 1>(reinterpret_cast<const float*>(block + plan.scales), {plan.rows});
  return matrix;
}

}  // namespace

LlamaWeights::LlamaWeights(const TensorSource& source, const ShardSpec& shard, const WeightFormat& format, StageDevice& device,
                           const LoadProgress& progress) {
  const ModelConfig& config = source.config();
  ShardReader reader(source);
  const Planner planner{config, shard, format, reader};
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
  memory_ = device.allocate(bytes_);
  std::byte* block = memory_.get();
  device.load(reader, block, progress);

  const int64_t hidden = config.hidden, vocab = shard.vocab.size();
  if (shard.first_stage) embedding_ = view_of<2>(block + embedding, format.dtype, {vocab, hidden});
  if (shard.last_stage) {
    final_norm_ = view_of<1>(block + final_norm, DType::f32, {hidden});
    logit_weights_ = view_of<2>(block + logit_weights, format.dtype, {device.multiprocessors() > 0 ? Planner::padded(vocab) : vocab, hidden});
  }
  for (const LayerPlan& plan : plans) {
    layers_.push_back({view_of<1>(block + plan.attention_norm, DType::f32, {hidden}), matrix_of(block, plan.qkv), matrix_of(block, plan.output),
                       view_of<1>(block + plan.mlp_norm, DType::f32, {hidden}), matrix_of(block, plan.gate_up), matrix_of(block, plan.down)});
  }
}

}  // namespace accrete::worker
