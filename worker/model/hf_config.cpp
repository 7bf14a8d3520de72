#include "worker/model/hf_config.h"

#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

std::string read_architecture(const JsonObject& json) {
  const std::vector<std::string> named = json.texts("architectures");
  std::string architecture = named.empty() ? "" : named.front();
  if (architecture.empty()) {
    const std::string type = json.text("model_type", "");
    if (type == "llama") architecture = "LlamaForCausalLM";
    if (type == "mistral") architecture = "MistralForCausalLM";
    if (architecture.empty())
      model_error("{}: architectures is missing and model_type is {}", json.where(), in_quotes(type));
  }
  if (architecture != "LlamaForCausalLM" && architecture != "MistralForCausalLM") {
    model_error("{}: architectures names {}; LlamaForCausalLM and MistralForCausalLM are supported", json.where(),
                in_quotes(architecture));
  }
  return architecture;
}

// Fields that change the network into one that the forward pass does not compute.
void refuse_other_networks(const JsonObject& json, int64_t max_position) {
  for (const char* flag : {"attention_bias", "mlp_bias", "rope_interleaved"}) {
    if (json.boolean(flag, false)) model_error("{}: {} is true, which is not supported", json.where(), flag);
  }
  const std::string activation = json.text("hidden_act", "silu");
  if (activation != "silu" && activation != "swish") {
    model_error("{}: hidden_act is {}; only silu is supported", json.where(), in_quotes(activation));
  }
  if (const auto quantization = json.object("quantization_config")) {
    model_error("{}: quantization_config names {}; quantized safetensors are not supported, use a GGUF file",
                json.where(), in_quotes(quantization->text("quant_method", "an unknown method")));
  }
  if (json.number("partial_rotary_factor", 1.0) != 1.0) {
    model_error("{}: partial_rotary_factor must be 1", json.where());
  }
  if (json.has("sliding_window") && json.boolean("use_sliding_window", true) &&
      json.integer("sliding_window") < max_position) {
    model_error("{}: sliding_window is {}; models with a sliding window are not supported", json.where(),
                json.integer("sliding_window"));
  }
}

std::optional<RopeScaling> parse_rope_scaling(const JsonObject& json, int64_t max_position) {
  const std::string type = json.text("rope_type", json.text("type", "default"));
  if (type == "default") return std::nullopt;
  RopeScaling scaling;
  if (type != "linear" && type != "llama3") {
    model_error("{}: rope_type is {}; default, linear and llama3 are supported", json.where(), in_quotes(type));
  }
  if (!json.has("factor")) model_error("{}: factor is missing", json.where());
  scaling.factor = json.number("factor", 1.0);
  if (type == "linear") {
    scaling.kind = RopeScaling::Kind::linear;
    return scaling;
  }
  scaling.low_freq_factor = json.number("low_freq_factor", 1.0);
  scaling.high_freq_factor = json.number("high_freq_factor", 4.0);
  scaling.original_max_position = json.integer("original_max_position_embeddings", max_position);
  return scaling;
}

// Up to transformers 4 rope_theta and rope_scaling; from 5 on rope_parameters holds both.
void parse_rope(const JsonObject& json, ModelConfig& config) {
  config.rope_theta = json.number("rope_theta", 10000.0);
  for (const char* block : {"rope_scaling", "rope_parameters"}) {
    const auto rope = json.object(block);
    if (!rope) continue;
    config.rope_theta = rope->number("rope_theta", config.rope_theta);
    if (rope->number("partial_rotary_factor", 1.0) != 1.0) {
      model_error("{}: partial_rotary_factor must be 1", rope->where());
    }
    if (auto scaling = parse_rope_scaling(*rope, config.max_position)) config.rope_scaling = scaling;
  }
}

void parse_token_ids(const JsonObject& json, ModelConfig& config) {
  if (json.has("bos_token_id")) {
    const std::vector<int32_t> bos = json.token_ids("bos_token_id");
    if (!bos.empty()) config.bos_token_id = bos.front();
  }
  if (json.has("eos_token_id")) config.eos_token_ids = json.token_ids("eos_token_id");
}

}  // namespace

DmcConfig parse_dmc(const JsonObject& json) {
  DmcConfig dmc;
  dmc.target_cr = json.number("target_cr", dmc.target_cr);
  const int64_t window = json.integer("window", dmc.window);
  dmc.offset = json.number("offset", dmc.offset);
  if (dmc.target_cr < 1.0) model_error("{}: target_cr must be at least 1, not {}", json.where(), dmc.target_cr);
  if (window < 0 || window > 4096) model_error("{}: window must be in 0..4096, not {}", json.where(), window);
  dmc.window = static_cast<int>(window);
  return dmc;
}

ModelConfig parse_hf_config(const JsonObject& json) {
  ModelConfig config;
  config.architecture = read_architecture(json);
  const bool mistral = config.architecture == "MistralForCausalLM";
  config.hidden = json.integer("hidden_size");
  config.mlp = json.integer("intermediate_size");
  config.layers = json.integer("num_hidden_layers");
  config.query_heads = json.integer("num_attention_heads");
  config.kv_heads = json.integer("num_key_value_heads", mistral ? 8 : config.query_heads);
  config.vocab = json.integer("vocab_size");
  if (!json.has("head_dim") && (config.query_heads < 1 || config.hidden % config.query_heads != 0)) {
    model_error("{}: hidden_size {} is no multiple of num_attention_heads {} and head_dim is missing", json.where(),
                config.hidden, config.query_heads);
  }
  config.head_size = json.has("head_dim") ? json.integer("head_dim") : config.hidden / config.query_heads;
  // What is absent has the default of transformers.
  config.max_position = json.integer("max_position_embeddings", mistral ? 131072 : 2048);
  config.rms_norm_eps = json.number("rms_norm_eps", 1e-6);
  config.tied_embeddings = json.boolean("tie_word_embeddings", false);
  parse_rope(json, config);
  refuse_other_networks(json, config.max_position);
  if (const auto dmc = json.object("dmc")) config.dmc = parse_dmc(*dmc);
  config.bos_token_id = 1;
  config.eos_token_ids = {2};
  parse_token_ids(json, config);
  validate(config, json.where());
  return config;
}

rpc::GenerationDefaults parse_generation_config(const JsonObject& json, ModelConfig& config) {
  parse_token_ids(json, config);
  rpc::GenerationDefaults defaults;
  if (json.has("temperature")) defaults.set_temperature(static_cast<float>(json.number("temperature", 1.0)));
  if (json.has("top_p")) defaults.set_top_p(static_cast<float>(json.number("top_p", 1.0)));
  if (json.has("top_k")) defaults.set_top_k(static_cast<int32_t>(json.integer("top_k")));
  if (json.has("repetition_penalty")) {
    defaults.set_repetition_penalty(static_cast<float>(json.number("repetition_penalty", 1.0)));
  }
  return defaults;
}

}  // namespace accrete::worker
