#include "worker/model/llama_stage.h"

#include <algorithm>
#include <span>
#include <vector>

#include "kernels/check.h"
#include "worker/model/llama_scratch.h"
#include "worker/model/llama_weights.h"
#include "worker/model/model_error.h"

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

LlamaScratchSize scratch_size(const LlamaStageOptions& options, const parallel::DeviceGroup& tensor_group) {
  const bool gathers = tensor_group.size() > 1 && tensor_group.rank() == 0;
  return {options.max_step_tokens, options.max_logit_rows, tensor_group.size(), gathers, options.weights.fp8};
}

std::span<std::byte> bytes_of(const AnyView<2>& view) {
  return {static_cast<std::byte*>(view.data), static_cast<size_t>(view.shape[0] * view.shape[1]) * size_of(view.dtype)};
}

// What a network reads while it computes and no checkpoint holds.
struct Constants {
  Constants(const ModelConfig& config, const ShardSpec& shard, const DmcParams& dmc, StageDevice& device) {
    std::vector<double> values = rope_frequencies(config);
    CHECK(static_cast<int64_t>(values.size()) * 2 == config.head_size, values.size(), config.head_size);
    const auto frequencies = static_cast<int64_t>(values.size()), heads = shard.kv_heads.size(), layers = shard.layers.size();
    for (int64_t layer = shard.layers.begin; layer < shard.layers.end; ++layer) {
      for (int64_t head = shard.kv_heads.begin; head < shard.kv_heads.end; ++head) {
        values.push_back(dmc.mode == DmcMode::synthetic ? synthetic_rate(dmc, static_cast<int>(layer), static_cast<int>(head)) : 0.0);
      }
    }
    const auto bytes = static_cast<int64_t>(values.size() * sizeof(double));
    memory = device.allocate(bytes);
    device.upload(memory.get(), values.data(), bytes);
    const auto* begin = reinterpret_cast<const double*>(memory.get());
    inv_freq = View<const double, 1>(begin, {frequencies});
    synthetic_rates = View<const double, 2>(begin + frequencies, {layers, heads});
  }

  DeviceBytes memory;
  View<const double, 1> inv_freq;         // [D/2]
  View<const double, 2> synthetic_rates;  // [L_local, Hkv_local]
};

}  // namespace

struct LlamaStage::State {
  State(const TensorSource& source, const ShardSpec& shard_spec, const LlamaStageOptions& stage_options, StageDevice& stage_device,
        parallel::DeviceGroup& group);

  AnyView<2> residual(int64_t tokens) { return scratch.hidden.view<2>({tokens, config.hidden}); }
  AnyView<2> delta(int64_t tokens) { return scratch.delta.view<2>({tokens, config.hidden}); }
  // An input of the layers' products as the op before leaves it: in `plain`, or rounded.
  AnyView<2> input(const ScratchBuffer& plain, std::array<int64_t, 2> shape) { return fp8() ? scratch.x8.view<2>(shape) : plain.view<2>(shape); }
  bool fp8() const { return options.weights.fp8; }
  bool summed() const { return tensor_group.size() > 1; }
  View<float, 1> x_scale(int64_t tokens) { return scratch.x_scale.as<float, 1>({tokens}); }
  // Of an unscaled product with `matrix`, until the next op rounds its rows.
  Factors factors(const WeightMatrix& matrix, int64_t tokens) { return {x_scale(tokens), matrix.scale}; }

  void make_plan();
  void all_reduce(const AnyView<2>& partial, const Factors& factors);
  RmsNorm norm_of(const AnyView<2>& x, const AnyView<1>& weight);
  void add_and_norm(int64_t tokens, const WeightMatrix* added, const AnyView<1>& weight);
  int64_t bytes_of_sum(int64_t tokens) const;
  bool sums_at_once(int64_t tokens) const;
  bool sums_with_norm(int64_t tokens) const;
  // Whether nobody else scales a product that is to be summed.
  bool scales_sums(int64_t tokens) const { return summed() && !sums_at_once(tokens); }
  void product(const AnyView<2>& x, const WeightMatrix& matrix, const AnyView<2>& y, bool scaled);
  void embed(const StageInput& input);
  void angles(const StepBatch& batch);
  DmcUpdate update_of(const StepBatch& batch, const CacheRef& cache, int layer);
  void attention_block(const StepBatch& batch, const CacheRef& cache, int layer);
  void mlp_block(int64_t tokens, int layer);
  void shard_logits(const StageInput& input);
  View<float, 2> joined();

  ModelConfig config;
  ShardSpec shard;
  LlamaStageOptions options;
  StageDevice& device;
  const Backend& backend;
  Stream& stream;
  parallel::DeviceGroup& tensor_group;
  LlamaWeights weights;
  LlamaScratch scratch;
  Constants constants;
  DecodePlan plan;
  DeviceBytes plan_memory;
  int64_t plan_bytes = 0;
  int64_t logit_rows = 0;  // of the last forward
};

LlamaStage::State::State(const TensorSource& source, const ShardSpec& shard_spec, const LlamaStageOptions& stage_options,
                         StageDevice& stage_device, parallel::DeviceGroup& group)
    : config(source.config()),
      shard(shard_spec),
      options(stage_options),
      device(stage_device),
      backend(device.backend()),
      stream(device.stream()),
      tensor_group(group),
      weights(source, shard, options.weights, device, options.progress),
      scratch(config, shard, scratch_size(options, group), device),
      constants(config, shard, shard_dmc(options.dmc, shard, config), device) {
  options.dmc = shard_dmc(options.dmc, shard, config);
  CHECK(group.size() <= kMostVocabularyShards, group.size());
  if (backend.plan_decode) make_plan();
}

void LlamaStage::State::make_plan() {
  DecodePlanShape shape;
  shape.layers = static_cast<int>(shard.layers.size());
  shape.kv_heads = static_cast<int>(shard.kv_heads.size());
  shape.group = static_cast<int>(config.query_heads / config.kv_heads);
  shape.head_size = static_cast<int>(config.head_size);
  shape.max_sequences = static_cast<int>(options.max_sequences);
  shape.multiprocessors = device.multiprocessors();
  plan_bytes = static_cast<int64_t>(shape.bytes());
  plan_memory = device.allocate(plan_bytes);
  plan = decode_plan(shape, plan_memory.get());
}

void LlamaStage::State::all_reduce(const AnyView<2>& partial, const Factors& factors) {
  if (!summed()) return;
  AnyView<1> flat;
  flat.data = partial.data;
  flat.dtype = partial.dtype;
  flat.shape = {partial.shape[0] * partial.shape[1]};
  flat.stride = {1};
  if (sums_at_once(partial.shape[0])) return options.one_shot->all_reduce_sum({flat, factors}, stream);
  tensor_group.all_reduce_sum(flat, stream);
}

RmsNorm LlamaStage::State::norm_of(const AnyView<2>& x, const AnyView<1>& weight) {
  RmsNorm op;
  op.x = x;
  op.weight = weight;
  op.eps = static_cast<float>(config.rms_norm_eps);
  return op;
}

int64_t LlamaStage::State::bytes_of_sum(int64_t tokens) const {
  return tokens * config.hidden * static_cast<int64_t>(size_of(device.activation_dtype()));
}

bool LlamaStage::State::sums_at_once(int64_t tokens) const {
  return options.one_shot && bytes_of_sum(tokens) <= options.one_shot_limits.sum_bytes;
}

// The norm that rounds to fp8 is the backend's own.
bool LlamaStage::State::sums_with_norm(int64_t tokens) const {
  return options.one_shot && !fp8() && bytes_of_sum(tokens) <= options.one_shot_limits.norm_bytes;
}

// The residual takes delta, which the product with `added` left (null: nothing did), summed over the tensor group; then its norm is what the
// next product reads.
void LlamaStage::State::add_and_norm(int64_t tokens, const WeightMatrix* added, const AnyView<1>& weight) {
  RmsNorm op = norm_of(residual(tokens), weight);
  if (added) op.delta = delta(tokens);
  const Factors unscaled = added && fp8() && !scales_sums(tokens) ? factors(*added, tokens) : Factors{};
  if (!summed()) op.delta_factors = unscaled;
  const AnyView<2> y = input(scratch.normed, {tokens, config.hidden});
  if (fp8()) op.y8 = {y.as<accrete::fp8>(), x_scale(tokens)};
  else op.y = y;
  if (added && summed() && sums_with_norm(tokens)) return options.one_shot->all_reduce_norm(op, stream);
  if (added) all_reduce(delta(tokens), unscaled);
  backend.rms_norm(op, stream);
}

// In fp8 x is rounded here unless it is already, and an unscaled y is for whoever reads it to scale by `factors`.
void LlamaStage::State::product(const AnyView<2>& x, const WeightMatrix& matrix, const AnyView<2>& y, bool scaled) {
  Linear op{x, matrix.w, y};
  if (matrix.w.dtype == DType::fp8) {
    op.w_scale = matrix.scale;
    op.x8 = scratch.x8.as<accrete::fp8, 2>(x.shape);
    op.x_scale = x_scale(x.shape[0]);
    op.scaled = scaled;
  }
  backend.linear(op, stream);
}

void LlamaStage::State::embed(const StageInput& input) {
  const AnyView<2> x = residual(input.batch.tokens());
  backend.embedding({input.ids, weights.embedding(), shard.vocab.begin, x}, stream);
  all_reduce(x, {});
}

void LlamaStage::State::angles(const StepBatch& batch) {
  const std::array<int64_t, 2> shape{batch.tokens(), config.head_size / 2};
  backend.rope_angles({batch.position, constants.inv_freq, scratch.cos.as<float, 2>(shape), scratch.sin.as<float, 2>(shape)}, stream);
}

DmcUpdate LlamaStage::State::update_of(const StepBatch& batch, const CacheRef& cache, int layer) {
  const int64_t tokens = batch.tokens(), kv_heads = shard.kv_heads.size();
  const std::array<int64_t, 2> half{tokens, config.head_size / 2};
  const std::array<int64_t, 3> kv_shape{tokens, kv_heads, config.head_size};
  DmcUpdate update;
  update.dmc = options.dmc;
  update.batch = batch;
  update.cache = cache;
  update.layer = layer;
  update.qkv = scratch.qkv.view<2>({tokens, weights.layer(layer).qkv.w.shape[0]});
  update.cos = scratch.cos.as<float, 2>(half);
  update.sin = scratch.sin.as<float, 2>(half);
  update.q = scratch.q.view<3>({tokens, shard.query_heads.size(), config.head_size});
  update.own_k = scratch.own_k.view<3>(kv_shape);
  update.own_v = scratch.own_v.view<3>(kv_shape);
  update.own_slot = scratch.own_slot.as<int32_t, 2>({tokens, kv_heads});
  update.synthetic_rates = constants.synthetic_rates[layer];
  update.weight = scratch.weight.as<float, 2>({kv_heads, tokens});
  update.appends = scratch.appends.as<int32_t, 3>({kv_heads, 2, (tokens + 31) / 32});
  return update;
}

// delta = Wo attention(dmc_update(Wqkv normed)) of this shard.
void LlamaStage::State::attention_block(const StepBatch& batch, const CacheRef& cache, int layer) {
  const LlamaLayerWeights& w = weights.layer(layer);
  const int64_t tokens = batch.tokens();
  const DmcUpdate update = update_of(batch, cache, layer);
  product(input(scratch.normed, {tokens, config.hidden}), w.qkv, update.qkv, true);
  backend.dmc_update(update, stream);
  const std::array<int64_t, 3> query_shape = update.q.shape;
  Attention attention{batch, cache, layer, update.q, update.own_k, update.own_v, update.own_slot, scratch.attended.view<3>(query_shape)};
  if (backend.plan_decode) attention.plan = &plan;
  backend.attention(attention, stream);
  product(scratch.attended.view<2>({tokens, query_shape[1] * query_shape[2]}), w.output, delta(tokens), scales_sums(tokens));
}

// delta = Wdown silu_mul(Wgate_up normed) of this shard.
void LlamaStage::State::mlp_block(int64_t tokens, int layer) {
  const LlamaLayerWeights& w = weights.layer(layer);
  SiluMul silu{scratch.gate_up.view<2>({tokens, w.gate_up.w.shape[0]}), {}};
  product(input(scratch.normed, {tokens, config.hidden}), w.gate_up, silu.gate_up, false);
  const AnyView<2> activated = input(scratch.activated, {tokens, w.down.w.shape[1]});
  if (fp8()) {
    silu.factors = factors(w.gate_up, tokens);
    silu.y8 = {activated.as<accrete::fp8>(), x_scale(tokens)};
  } else {
    silu.y = activated;
  }
  backend.silu_mul(silu, stream);
  product(activated, w.down, delta(tokens), scales_sums(tokens));
}

// Normalises and multiplies only the rows whose logits are wanted.
void LlamaStage::State::shard_logits(const StageInput& input) {
  logit_rows = input.logit_tokens.shape[0];
  CHECK(logit_rows <= options.max_logit_rows, logit_rows, options.max_logit_rows);
  if (logit_rows == 0) return;
  const AnyView<2> rows = scratch.last_rows.view<2>({logit_rows, config.hidden});
  // Picking rows of a table is what an embedding does.
  backend.embedding({input.logit_tokens, residual(input.batch.tokens()), 0, rows}, stream);
  RmsNorm norm = norm_of(rows, weights.final_norm());
  norm.y = scratch.normed.view<2>({logit_rows, config.hidden});
  backend.rms_norm(norm, stream);
  AnyView<2> local = scratch.shard_logits.view<2>({logit_rows, padded_vocab(config.vocab, tensor_group.size())});
  local.shape[1] = weights.logit_weights().shape[0];
  product(norm.y, {weights.logit_weights(), {}}, local, true);
}

// all_logits [R, n, V_padded] -> logits [n, V]
View<float, 2> LlamaStage::State::joined() {
  const int ranks = tensor_group.size();
  JoinLogits op;
  op.parts = scratch.all_logits.as<float, 3>({ranks, logit_rows, padded_vocab(config.vocab, ranks)});
  op.logits = scratch.logits.as<float, 2>({logit_rows, config.vocab});
  for (int r = 0; r < ranks; ++r) op.begin[r] = static_cast<int32_t>(parallel::deal_in_units(config.vocab, ranks, r).begin);
  op.begin[ranks] = static_cast<int32_t>(config.vocab);
  backend.join_logits(op, stream);
  return op.logits;
}

LlamaStage::LlamaStage(const TensorSource& source, const ShardSpec& shard, const LlamaStageOptions& options, StageDevice& device,
                       parallel::DeviceGroup& tensor_group)
    : state_(std::make_unique<State>(source, shard, options, device, tensor_group)) {}

LlamaStage::~LlamaStage() = default;

AnyView<2> LlamaStage::hidden(int64_t tokens) { return state_->residual(tokens); }

void LlamaStage::forward(const StageInput& input, const CacheRef& cache) {
  State& s = *state_;
  const int64_t tokens = input.batch.tokens();
  CHECK(tokens <= s.options.max_step_tokens, tokens, s.options.max_step_tokens);
  s.logit_rows = 0;
  if (tokens == 0) return;
  StepBatch batch = input.batch;
  if (s.shard.first_stage) s.embed(input);
  s.angles(batch);
  if (s.backend.plan_decode) {
    batch.prompt_share = prompt_share(s.plan.shape, input.load);
    s.backend.plan_decode(s.plan, batch, cache, s.stream);
  }
  const int layers = static_cast<int>(s.shard.layers.size());
  const WeightMatrix* added = nullptr;  // whose product delta holds
  for (int layer = 0; layer < layers; ++layer) {
    const LlamaLayerWeights& w = s.weights.layer(layer);
    s.add_and_norm(tokens, added, w.attention_norm);
    s.attention_block(batch, cache, layer);
    s.add_and_norm(tokens, &w.output, w.mlp_norm);
    s.mlp_block(tokens, layer);
    added = &w.down;
  }
  // The last addition; its norm is of no use here (the next stage, or the logits' rows, take their own).
  s.add_and_norm(tokens, added, s.weights.layer(layers - 1).mlp_norm);
  if (s.shard.last_stage) s.shard_logits(input);
}

void LlamaStage::pretend(const StageInput& input, const CacheRef& cache) {
  State& s = *state_;
  CHECK(input.batch.tokens() <= s.options.max_step_tokens, input.batch.tokens(), s.options.max_step_tokens);
  s.logit_rows = 0;
  s.angles(input.batch);
  const int layers = static_cast<int>(s.shard.layers.size());
  for (int layer = 0; layer < layers; ++layer) {
    const DmcUpdate update = s.update_of(input.batch, cache, layer);
    if (layer == 0) s.device.randomize(update.qkv);
    s.backend.dmc_update(update, s.stream);
  }
  if (s.shard.last_stage) s.shard_logits(input);
}

View<float, 2> LlamaStage::logits() {
  State& s = *state_;
  CHECK(s.shard.last_stage);
  parallel::DeviceGroup& group = s.tensor_group;
  const int64_t vocab = s.config.vocab, rows = s.logit_rows, padded = padded_vocab(vocab, group.size());
  if (group.size() == 1) {
    View<float, 2> logits = s.scratch.shard_logits.as<float, 2>({rows, padded});
    logits.shape[1] = vocab;
    return logits;
  }
  const bool receives = group.rank() == 0;
  if (rows == 0) return {nullptr, {0, vocab}};
  const std::span<std::byte> mine = bytes_of(s.scratch.shard_logits.view<2>({rows, padded}));
  std::span<std::byte> everyone;
  if (receives) everyone = bytes_of(s.scratch.all_logits.view<2>({group.size() * rows, padded}));
  group.gather(mine, everyone, 0, s.stream);
  if (receives) return s.joined();
  return {nullptr, {0, vocab}};
}

const LlamaWeights& LlamaStage::weights() const { return state_->weights; }
int64_t LlamaStage::scratch_bytes() const { return state_->scratch.bytes + state_->plan_bytes; }

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
