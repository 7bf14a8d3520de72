#include "worker/model/network_tensors.h"

#include "worker/model/model_error.h"

namespace accrete::worker {

void visit_tensors(const ModelConfig& config, const TensorVisitor& visit) {
  const int64_t e = config.hidden, f = config.mlp;
  const int64_t query = config.query_heads * config.head_size, kv = config.kv_heads * config.head_size;
  visit("model.embed_tokens.weight", config.vocab, e);
  for (int64_t layer = 0; layer < config.layers; ++layer) {
    const std::string prefix = fmt::format("model.layers.{}.", layer);
    visit(prefix + "input_layernorm.weight", 1, e);
    visit(prefix + "self_attn.q_proj.weight", query, e);
    visit(prefix + "self_attn.k_proj.weight", kv, e);
    visit(prefix + "self_attn.v_proj.weight", kv, e);
    visit(prefix + "self_attn.o_proj.weight", e, query);
    visit(prefix + "post_attention_layernorm.weight", 1, e);
    visit(prefix + "mlp.gate_proj.weight", f, e);
    visit(prefix + "mlp.up_proj.weight", f, e);
    visit(prefix + "mlp.down_proj.weight", e, f);
  }
  visit("model.norm.weight", 1, e);
  if (!config.tied_embeddings) visit("lm_head.weight", config.vocab, e);
}

void check_tensors(const TensorSource& source, const std::string& where) {
  visit_tensors(source.config(), [&](const std::string& name, int64_t rows, int64_t columns) {
    if (!source.has(name)) model_error("{}: tensor {} is missing", where, name);
    const auto [found_rows, found_columns] = source.shape(name);
    if (found_rows != rows || found_columns != columns) {
      model_error("{}: tensor {} is [{}, {}], the config needs [{}, {}]", where, name, found_rows, found_columns, rows,
                  columns);
    }
  });
}

}  // namespace accrete::worker
