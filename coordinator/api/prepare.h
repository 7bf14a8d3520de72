// From a parsed request and its model to generations ready to start: text to ids, defaults, limits.
#pragma once

#include "coordinator/api/generation.h"
#include "coordinator/api/request_json.h"

namespace accrete::coordinator {

struct PreparedChoice {
  GenerationRequest request;
  std::string prompt_text;  // echo
};

// One for each prompt and each of its n choices. Throws FieldError: an empty prompt, ids outside the vocabulary, a prompt that leaves no room in
// max_model_len, a model without tokenizer or chat template.
std::vector<PreparedChoice> prepare(const ApiRequest& request, const std::shared_ptr<const ModelEntry>& model);

// A text prompt's ids; throws FieldError when the model has no tokenizer.
std::vector<int32_t> encode_prompt(const ModelEntry& model, const std::string& text);
std::vector<int32_t> encode_chat(const ModelEntry& model, const std::vector<Message>& messages, bool add_generation_prompt);

}  // namespace accrete::coordinator
