// ModelConfig and generation defaults from the JSON of a Hugging Face directory.
#pragma once

#include <string>

#include "worker/model/json_file.h"
#include "worker/model/tensor_source.h"

namespace accrete::worker {

// config.json of a LlamaForCausalLM, or of a MistralForCausalLM without a sliding window. Throws ModelError naming the
// field of anything that this engine would compute otherwise than the model means. Already validated.
ModelConfig parse_hf_config(const JsonObject& json);

// generation_config.json: its token ids take the place of config.json's.
rpc::GenerationDefaults parse_generation_config(const JsonObject& json, ModelConfig& config);

// A "dmc" block {target_cr, window, offset}, of config.json or of an adapter.
DmcConfig parse_dmc(const JsonObject& json);

}  // namespace accrete::worker
