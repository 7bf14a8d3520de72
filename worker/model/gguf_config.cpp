#include <algorithm>
#include <limits>

#include "worker/model/gguf_metadata.h"
#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

int64_t required(const GgufFile& file, std::string_view key) {
  const auto value = file.integer(key);
  if (!value) model_error("{}: {} is missing", file.name(), key);
  return *value;
}

int32_t token_id(const GgufFile& file, std::string_view key) {
  const int64_t id = file.integer(key).value_or(-1);
  // Files write "none" as -1 or as the same bits without a sign.
  if (id == -1 || id == std::numeric_limits<uint32_t>::max()) return -1;
  if (id < 0 || id > std::numeric_limits<int32_t>::max())
    model_error("{}: {} is no token id: {}", file.name(), key, id);
  return static_cast<int32_t>(id);
}

// The ids that end an answer: those named in the metadata, and the control tokens that end a turn by their text, which
// files converted before the key for them existed leave unnamed.
void read_token_ids(const GgufFile& file, ModelConfig& config) {
  config.bos_token_id = token_id(file, "tokenizer.ggml.bos_token_id");
  const auto add_eos = [&](int32_t id) {
    std::vector<int32_t>& ids = config.eos_token_ids;
    if (id >= 0 && std::find(ids.begin(), ids.end(), id) == ids.end()) ids.push_back(id);
  };
  for (const char* key : {"eos_token_id", "eot_token_id", "eom_token_id"}) {
    add_eos(token_id(file, fmt::format("tokenizer.ggml.{}", key)));
  }
  constexpr int32_t kControl = 3;
  const std::vector<std::string_view> tokens = file.texts("tokenizer.ggml.tokens");
  const std::vector<int32_t> types = file.integers("tokenizer.ggml.token_type");
  for (size_t id = 0; id < std::min(tokens.size(), types.size()); ++id) {
    const bool ends_turn = tokens[id] == "<|eot_id|>" || tokens[id] == "<|eom_id|>" || tokens[id] == "<|im_end|>";
    if (types[id] == kControl && ends_turn) add_eos(static_cast<int32_t>(id));
  }
}

void read_rope(const GgufFile& file, ModelConfig& config) {
  config.rope_theta = file.number("llama.rope.freq_base").value_or(10000.0);
  const int64_t rotated = file.integer("llama.rope.dimension_count").value_or(config.head_size);
  if (rotated != config.head_size) {
    model_error("{}: llama.rope.dimension_count is {}, the head size {}; partial rotation is not supported",
                file.name(), rotated, config.head_size);
  }
  const std::string_view type = file.text("llama.rope.scaling.type").value_or("none");
  // Before the type had a key of its own there was the linear factor alone.
  double factor = file.number("llama.rope.scale_linear").value_or(1.0);
  if (type == "linear")
    factor = file.number("llama.rope.scaling.factor").value_or(factor);
  else if (type != "none")
    model_error("{}: llama.rope.scaling.type is {}; none and linear are supported", file.name(), in_quotes(type));
  if (factor == 1.0 || factor == 0.0) return;
  RopeScaling scaling;
  scaling.kind = RopeScaling::Kind::linear;
  scaling.factor = factor;
  config.rope_scaling = scaling;
}

void refuse_other_networks(const GgufFile& file, const ModelConfig& config) {
  if (file.integer("llama.expert_count").value_or(0) != 0) {
    model_error("{}: llama.expert_count is {}; mixtures of experts are not supported", file.name(),
                *file.integer("llama.expert_count"));
  }
  const int64_t window = file.integer("llama.attention.sliding_window").value_or(0);
  if (window != 0 && window < config.max_position) {
    model_error("{}: llama.attention.sliding_window is {}; models with a sliding window are not supported", file.name(),
                window);
  }
  const int64_t value_size = file.integer("llama.attention.value_length").value_or(config.head_size);
  if (value_size != config.head_size) {
    model_error("{}: llama.attention.value_length {} is not key_length {}", file.name(), value_size, config.head_size);
  }
}

}  // namespace

ModelConfig parse_gguf_config(const GgufFile& file) {
  const std::string_view architecture = file.text("general.architecture").value_or("");
  if (architecture != "llama") {
    model_error("{}: general.architecture is {}; llama is supported", file.name(), in_quotes(architecture));
  }
  if (const int64_t parts = file.integer("split.count").value_or(1); parts > 1) {
    model_error("{}: split.count is {}; join the parts to one file first (llama-gguf-split --merge)", file.name(),
                parts);
  }
  ModelConfig config;
  config.hidden = required(file, "llama.embedding_length");
  config.mlp = required(file, "llama.feed_forward_length");
  config.layers = required(file, "llama.block_count");
  config.query_heads = required(file, "llama.attention.head_count");
  config.kv_heads = file.integer("llama.attention.head_count_kv").value_or(config.query_heads);
  config.max_position = required(file, "llama.context_length");
  config.rms_norm_eps = file.number("llama.attention.layer_norm_rms_epsilon").value_or(1e-5);
  const auto head_size = file.integer("llama.attention.key_length");
  if (!head_size && (config.query_heads < 1 || config.hidden % config.query_heads != 0)) {
    model_error("{}: llama.embedding_length {} is no multiple of llama.attention.head_count {}", file.name(),
                config.hidden, config.query_heads);
  }
  config.head_size = head_size ? *head_size : config.hidden / config.query_heads;
  const auto embedding = file.tensors().find("token_embd.weight");
  if (embedding == file.tensors().end()) model_error("{}: tensor token_embd.weight is missing", file.name());
  config.vocab = embedding->second.dims[1];
  config.tied_embeddings = !file.tensors().contains("output.weight");
  read_rope(file, config);
  refuse_other_networks(file, config);
  read_token_ids(file, config);
  validate(config, file.name());
  return config;
}

}  // namespace accrete::worker
