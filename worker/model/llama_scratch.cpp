#include "worker/model/llama_scratch.h"

namespace accrete::worker {

LlamaScratch::LlamaScratch(const ModelConfig& config, const parallel::ShardSpec& shard, const LlamaScratchSize& size) {
  const int64_t query_width = shard.query_heads.size() * config.head_size;
  const int64_t kv_width = shard.kv_heads.size() * config.head_size;
  for (auto* buffer : {&hidden, &delta, &normed}) buffer->resize(size.tokens * config.hidden);
  for (auto* buffer : {&q, &attended}) buffer->resize(size.tokens * query_width);
  for (auto* buffer : {&own_k, &own_v}) buffer->resize(size.tokens * kv_width);
  for (auto* buffer : {&cos, &sin}) buffer->resize(size.tokens * config.head_size / 2);
  qkv.resize(size.tokens * (query_width + 2 * kv_width));
  own_slot.resize(size.tokens * shard.kv_heads.size());
  gate_up.resize(size.tokens * 2 * shard.mlp.size());
  activated.resize(size.tokens * shard.mlp.size());
  if (!shard.last_stage) return;

  const int64_t padded = (config.vocab + size.tensor_size - 1) / size.tensor_size;
  last_rows.resize(size.logit_rows * config.hidden);
  shard_logits.resize(size.logit_rows * padded);
  if (size.tensor_size == 1 || size.tensor_rank != 0) return;
  all_logits.resize(size.tensor_size * size.logit_rows * padded);
  logits.resize(size.logit_rows * config.vocab);
}

}  // namespace accrete::worker
