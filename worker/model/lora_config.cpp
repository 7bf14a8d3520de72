#include "worker/model/lora_config.h"

#include <cmath>

#include "worker/model/hf_config.h"
#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

constexpr int64_t kLargestRank = 65536;

void check_rank(const std::string& where, std::string_view field, int64_t rank) {
  if (rank < 1 || rank > kLargestRank) model_error("{}: {} must be in 1..{}, not {}", where, field, kLargestRank, rank);
}

// PEFT takes the keys for regular expressions; those in use are plain names, where a dot may stand escaped.
std::string plain_name(const std::string& where, std::string_view key) {
  std::string name;
  for (size_t i = 0; i < key.size(); ++i) {
    if (key[i] == '\\' && i + 1 < key.size() && key[i + 1] == '.') continue;
    if (std::string_view("\\*+?[](){}|^$").find(key[i]) != std::string_view::npos) {
      model_error("{}: {} is a regular expression; only module names are supported", where, in_quotes(key));
    }
    name += key[i];
  }
  return name;
}

// What would merge into other weights than W + scale * B A.
void refuse_other_adapters(const JsonObject& json) {
  const std::string type = json.text("peft_type", "LORA");
  if (type != "LORA") model_error("{}: peft_type is {}; only LORA is supported", json.where(), in_quotes(type));
  const std::string bias = json.text("bias", "none");
  if (bias != "none") model_error("{}: bias is {}; only none is supported", json.where(), in_quotes(bias));
  for (const char* flag : {"use_dora", "lora_bias", "fan_in_fan_out", "use_qalora"}) {
    if (json.boolean(flag, false)) model_error("{}: {} is true, which is not supported", json.where(), flag);
  }
  for (const char* field :
       {"layer_replication", "trainable_token_indices", "target_parameters", "alora_invocation_tokens"}) {
    const auto& value = json.field(field);
    if (!value.is_null() && !value.empty()) model_error("{}: {} is set, which is not supported", json.where(), field);
  }
  const auto& init = json.field("init_lora_weights");
  if (!init.is_string()) return;
  const std::string name = json.text("init_lora_weights", "");
  for (const char* changing : {"pissa", "olora", "corda", "loftq"}) {
    if (name.starts_with(changing)) {
      model_error("{}: init_lora_weights is {}, which changes the base weights; convert the adapter to a plain LoRA",
                  json.where(), in_quotes(name));
    }
  }
}

}  // namespace

bool names_module(std::string_view pattern, std::string_view module) {
  if (!module.ends_with(pattern)) return false;
  return module.size() == pattern.size() || module[module.size() - pattern.size() - 1] == '.';
}

LoraConfig parse_lora_config(const JsonObject& json) {
  refuse_other_adapters(json);
  LoraConfig config;
  config.rank = json.integer("r");
  check_rank(json.where(), "r", config.rank);
  config.alpha = json.number("lora_alpha", 8.0);
  config.rank_stabilized = json.boolean("use_rslora", false);
  if (json.field("target_modules").is_array())
    config.target_modules = json.texts("target_modules");
  else
    json.text("target_modules", "");
  config.modules_to_save = json.texts("modules_to_save");
  if (const auto ranks = json.object("rank_pattern")) {
    for (const auto& [key, value] : ranks->value().items()) {
      config.ranks.emplace_back(plain_name(ranks->where(), key), ranks->integer(key));
      check_rank(ranks->where(), key, config.ranks.back().second);
    }
  }
  if (const auto alphas = json.object("alpha_pattern")) {
    for (const auto& [key, value] : alphas->value().items()) {
      config.alphas.emplace_back(plain_name(alphas->where(), key), alphas->number(key, config.alpha));
    }
  }
  if (const auto dmc = json.object("dmc")) config.dmc = parse_dmc(*dmc);
  return config;
}

int64_t rank_of(const LoraConfig& config, std::string_view module) {
  for (const auto& [pattern, rank] : config.ranks) {
    if (names_module(pattern, module)) return rank;
  }
  return config.rank;
}

double scale_of(const LoraConfig& config, std::string_view module) {
  double alpha = config.alpha;
  for (const auto& [pattern, value] : config.alphas) {
    if (names_module(pattern, module)) {
      alpha = value;
      break;
    }
  }
  const auto rank = static_cast<double>(rank_of(config, module));
  return alpha / (config.rank_stabilized ? std::sqrt(rank) : rank);
}

}  // namespace accrete::worker
