#include "worker/model/llama_stage.h"

#include <algorithm>
#include <span>

#include "kernels/check.h"
#include "worker/model/llama_scratch.h"
#include "worker/model/llama_weights.h"

namespace accrete::worker {

using parallel::ShardSpec;

namespace {

DmcParams shard_dmc(DmcParams dmc, const ShardSpec& shard, const ModelConfig& config) {
  dmc.model_layers = static_cast<int>(config.layers);
  dmc.model_kv_heads = static_cast<int>(config.kv_heads);
  dmc.layer_begin = static_cast<int>(shard.layers.begin);
  dmc.kv_head_begin = static_cast<int>(shard.kv_heads.begin);
  return dmc;
}

LlamaScratchSize scratch_size(const LlamaStageOptions& options, const parallel::Communicator& tensor_group) {
  return {options.max_step_tokens, options.max_logit_rows, tensor_group.size(), tensor_group.rank()};
}

}  // namespace

struct LlamaStage::State {
  State(const TensorSource& source, const ShardSpec& shard_spec, const LlamaStageOptions& options,
        const StageDevice& device, parallel::Communicator& group);

  template <int N>
  View<float, N> shaped(std::vector<float>& buffer, std::array<int64_t, N> shape) const {
    View<float, N> view(buffer.data(), shape);
    CHECK(view.size() <= static_cast<int64_t>(buffer.size()), view.size(), buffer.size());
    return view;
  }
  View<float, 2> residual(int64_t tokens) { return shaped<2>(scratch.hidden, {tokens, config.hidden}); }
  View<float, 2> delta(int64_t tokens) { return shaped<2>(scratch.delta, {tokens, config.hidden}); }
  View<float, 2> normed(int64_t tokens) { return shaped<2>(scratch.normed, {tokens, config.hidden}); }

  void all_reduce(const View<float, 2>& partial) {
    if (tensor_group.size() > 1) tensor_group.all_reduce_sum({partial.data, static_cast<size_t>(partial.size())});
  }
  void add_and_norm(const View<float, 2>& x, bool add, const AnyView<1>& weight);
  void embed(const StageInput& input);
  void angles(const StepBatch& batch);
  void attention_block(const StepBatch& batch, const CacheRef& cache, int layer);
  void mlp_block(int64_t tokens, int layer);
  void shard_logits(const StageInput& input);
  View<float, 2> interleaved();

  ModelConfig config;
  ShardSpec shard;
  LlamaStageOptions options;
  const Backend& backend;
  Stream stream;
  parallel::Communicator& tensor_group;
  std::vector<double> inv_freq;  // [D/2]
  LlamaWeights weights;
  LlamaScratch scratch;
  int64_t logit_rows = 0;  // of the last forward
};

LlamaStage::State::State(const TensorSource& source, const ShardSpec& shard_spec,
                         const LlamaStageOptions& stage_options, const StageDevice& device,
                         parallel::Communicator& group)
    : config(source.config()),
      shard(shard_spec),
      options(stage_options),
      backend(device.backend),
      stream(device.stream),
      tensor_group(group),
      inv_freq(rope_frequencies(config)),
      weights(source, shard, options.weight_dtype, *stream.pool, options.progress),
      scratch(config, shard, scratch_size(options, group)) {
  options.dmc = shard_dmc(options.dmc, shard, config);
  CHECK(static_cast<int64_t>(inv_freq.size()) * 2 == config.head_size, inv_freq.size(), config.head_size);
}

// x += delta when asked, then normed = rms_norm(x).
void LlamaStage::State::add_and_norm(const View<float, 2>& x, bool add, const AnyView<1>& weight) {
  RmsNorm op;
  op.x = x;
  if (add) op.delta = delta(x.shape[0]);
  op.weight = weight;
  op.y = normed(x.shape[0]);
  op.eps = static_cast<float>(config.rms_norm_eps);
  backend.rms_norm(op, stream);
}

void LlamaStage::State::embed(const StageInput& input) {
  const View<float, 2> x = residual(input.batch.tokens());
  backend.embedding({input.ids, weights.embedding(), shard.vocab.begin, x}, stream);
  all_reduce(x);
}

void LlamaStage::State::angles(const StepBatch& batch) {
  const int64_t tokens = batch.tokens();
  const int64_t half = config.head_size / 2;
  const View<const double, 1> frequencies(inv_freq.data(), {half});
  backend.rope_angles(
      {batch.position, frequencies, shaped<2>(scratch.cos, {tokens, half}), shaped<2>(scratch.sin, {tokens, half})},
      stream);
}

// delta = Wo attention(dmc_update(Wqkv normed)), summed over the tensor group.
void LlamaStage::State::attention_block(const StepBatch& batch, const CacheRef& cache, int layer) {
  const LlamaLayerWeights& w = weights.layer(layer);
  const int64_t tokens = batch.tokens();
  const int64_t half = config.head_size / 2;
  const int64_t query_heads = shard.query_heads.size();
  const int64_t kv_heads = shard.kv_heads.size();
  const std::array<int64_t, 3> query_shape{tokens, query_heads, config.head_size};
  const std::array<int64_t, 3> kv_shape{tokens, kv_heads, config.head_size};
  const auto qkv = shaped<2>(scratch.qkv, {tokens, w.qkv.shape[0]});
  backend.linear({normed(tokens), w.qkv, qkv}, stream);

  DmcUpdate update;
  update.dmc = options.dmc;
  update.batch = batch;
  update.cache = cache;
  update.layer = layer;
  update.qkv = qkv;
  update.cos = shaped<2>(scratch.cos, {tokens, half});
  update.sin = shaped<2>(scratch.sin, {tokens, half});
  update.q = shaped<3>(scratch.q, query_shape);
  update.own_k = shaped<3>(scratch.own_k, kv_shape);
  update.own_v = shaped<3>(scratch.own_v, kv_shape);
  update.own_slot = View<int32_t, 2>(scratch.own_slot.data(), {tokens, kv_heads});
  backend.dmc_update(update, stream);

  const auto attended = shaped<3>(scratch.attended, query_shape);
  backend.attention({batch, cache, layer, update.q, update.own_k, update.own_v, update.own_slot, attended}, stream);
  backend.linear({shaped<2>(scratch.attended, {tokens, query_heads * config.head_size}), w.output, delta(tokens)},
                 stream);
  all_reduce(delta(tokens));
}

// delta = Wdown silu_mul(Wgate_up normed), summed over the tensor group.
void LlamaStage::State::mlp_block(int64_t tokens, int layer) {
  const LlamaLayerWeights& w = weights.layer(layer);
  const auto gate_up = shaped<2>(scratch.gate_up, {tokens, w.gate_up.shape[0]});
  const auto activated = shaped<2>(scratch.activated, {tokens, w.down.shape[1]});
  backend.linear({normed(tokens), w.gate_up, gate_up}, stream);
  backend.silu_mul({gate_up, activated}, stream);
  backend.linear({activated, w.down, delta(tokens)}, stream);
  all_reduce(delta(tokens));
}

// Normalises and multiplies only the rows whose logits are wanted.
void LlamaStage::State::shard_logits(const StageInput& input) {
  logit_rows = input.logit_tokens.shape[0];
  CHECK(logit_rows <= options.max_logit_rows, logit_rows, options.max_logit_rows);
  if (logit_rows == 0) return;
  const auto rows = shaped<2>(scratch.last_rows, {logit_rows, config.hidden});
  // Picking rows of a table is what an embedding does.
  backend.embedding({input.logit_tokens, residual(input.batch.tokens()), 0, rows}, stream);
  add_and_norm(rows, false, weights.final_norm());
  const int64_t padded = (config.vocab + tensor_group.size() - 1) / tensor_group.size();
  const View<float, 2> local(scratch.shard_logits.data(), {logit_rows, shard.vocab.size()}, {padded, 1});
  backend.linear({normed(logit_rows), weights.logit_weights(), local}, stream);
}

// all_logits [R, n, V_padded] -> logits [n, V]
View<float, 2> LlamaStage::State::interleaved() {
  const int ranks = tensor_group.size();
  const int64_t padded = (config.vocab + ranks - 1) / ranks;
  const View<const float, 3> gathered(scratch.all_logits.data(), {ranks, logit_rows, padded});
  const View<float, 2> logits(scratch.logits.data(), {logit_rows, config.vocab});
  for (int64_t row = 0; row < logit_rows; ++row) {
    for (int rank = 0; rank < ranks; ++rank) {
      const parallel::Range vocab = parallel::deal(config.vocab, ranks, rank);
      std::copy_n(&gathered(rank, row, 0), vocab.size(), &logits(row, vocab.begin));
    }
  }
  return logits;
}

LlamaStage::LlamaStage(const TensorSource& source, const ShardSpec& shard, const LlamaStageOptions& options,
                       const StageDevice& device, parallel::Communicator& tensor_group)
    : state_(std::make_unique<State>(source, shard, options, device, tensor_group)) {}

LlamaStage::~LlamaStage() = default;

View<float, 2> LlamaStage::hidden(int64_t tokens) {
  return state_->residual(tokens);
}

void LlamaStage::forward(const StageInput& input, const CacheRef& cache) {
  State& s = *state_;
  const int64_t tokens = input.batch.tokens();
  CHECK(tokens <= s.options.max_step_tokens, tokens, s.options.max_step_tokens);
  s.logit_rows = 0;
  if (tokens == 0) return;
  if (s.shard.first_stage) s.embed(input);
  s.angles(input.batch);
  const int layers = static_cast<int>(s.shard.layers.size());
  for (int layer = 0; layer < layers; ++layer) {
    s.add_and_norm(s.residual(tokens), layer > 0, s.weights.layer(layer).attention_norm);
    s.attention_block(input.batch, cache, layer);
    s.add_and_norm(s.residual(tokens), true, s.weights.layer(layer).mlp_norm);
    s.mlp_block(tokens, layer);
  }
  // The last addition; its norm is of no use here (the next stage, or the logits' rows, take their own).
  s.add_and_norm(s.residual(tokens), true, s.weights.layer(layers - 1).mlp_norm);
  if (s.shard.last_stage) s.shard_logits(input);
}

View<float, 2> LlamaStage::logits() {
  State& s = *state_;
  CHECK(s.shard.last_stage);
  const int ranks = s.tensor_group.size();
  if (ranks == 1) return s.shaped<2>(s.scratch.shard_logits, {s.logit_rows, s.config.vocab});
  const int64_t padded = (s.config.vocab + ranks - 1) / ranks;
  const bool receives = s.tensor_group.rank() == 0;
  const auto mine = s.shaped<2>(s.scratch.shard_logits, {s.logit_rows, padded});
  const std::span<float> everyone(s.scratch.all_logits.data(), receives ? ranks * mine.size() : 0);
  if (s.logit_rows > 0)
    s.tensor_group.gather(std::as_bytes(std::span(mine.data, static_cast<size_t>(mine.size()))),
                          std::as_writable_bytes(everyone), 0);
  if (receives) return s.interleaved();
  return View<float, 2>(nullptr, {0, s.config.vocab});
}

int64_t LlamaStage::weight_bytes() const {
  return state_->weights.bytes();
}

parallel::NetworkShape network_shape(const ModelConfig& config) {
  return {config.layers, config.query_heads, config.kv_heads, config.mlp, config.vocab};
}

DmcParams learned_dmc(const ModelConfig& config, DType weight_dtype) {
  DmcParams dmc;
  if (!config.dmc) return dmc;
  dmc.mode = DmcMode::learned;
  dmc.window = config.dmc->window;
  dmc.offset = static_cast<float>(config.dmc->offset);
  dmc.bf16_decision = weight_dtype == DType::bf16;
  return dmc;
}

}  // namespace accrete::worker
