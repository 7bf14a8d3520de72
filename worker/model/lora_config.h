// adapter_config.json of a PEFT LoRA adapter.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "worker/model/json_file.h"
#include "worker/model/model_config.h"

namespace accrete::worker {

struct LoraConfig {
  int64_t rank = 8;
  double alpha = 8.0;
  bool rank_stabilized = false;             // scale by alpha / sqrt(r) instead of alpha / r
  std::vector<std::string> target_modules;  // empty: a pattern, or all linear layers
  std::vector<std::string> modules_to_save;
  // Module name, or the end of one, to what it has instead of `rank` and `alpha`.
  std::vector<std::pair<std::string, int64_t>> ranks;
  std::vector<std::pair<std::string, double>> alphas;
  std::optional<DmcConfig> dmc;
};

// Throws ModelError for adapters of another kind (DoRA, trained biases, changed layers), naming the field.
LoraConfig parse_lora_config(const JsonObject& json);

// Of a module such as "model.layers.0.self_attn.q_proj".
int64_t rank_of(const LoraConfig& config, std::string_view module);
double scale_of(const LoraConfig& config, std::string_view module);

// Whether `pattern` is the module's name or its end at a dot.
bool names_module(std::string_view pattern, std::string_view module);

}  // namespace accrete::worker
