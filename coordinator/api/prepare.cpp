#include "coordinator/api/prepare.h"

#include <fmt/format.h>

#include <algorithm>

namespace accrete::coordinator {
namespace {

void check_ids(const ModelEntry& model, const std::vector<int32_t>& ids) {
  if (ids.empty()) throw FieldError("prompt", "the prompt is empty");
  const auto vocab = static_cast<int32_t>(model.card.vocab_size());
  for (int32_t id : ids) {
    if (id < 0 || id >= vocab) throw FieldError("prompt", fmt::format("token id {} is outside the vocabulary of {}", id, vocab));
  }
}

// What the client left open, the model's generation_config.json answers.
void apply_defaults(const ApiRequest& request, const rpc::GenerationDefaults& defaults, rpc::SamplingParams& sampling) {
  if (!request.has_temperature && defaults.has_temperature()) sampling.set_temperature(defaults.temperature());
  if (!request.has_top_p && defaults.has_top_p()) sampling.set_top_p(defaults.top_p());
  if (!request.has_top_k && defaults.has_top_k()) sampling.set_top_k(defaults.top_k());
  if (!request.has_repetition_penalty && defaults.has_repetition_penalty()) sampling.set_repetition_penalty(defaults.repetition_penalty());
}

void set_max_tokens(const ApiRequest& request, const ModelEntry& model, size_t prompt, rpc::SamplingParams& sampling) {
  const auto limit = static_cast<int64_t>(model.card.max_model_len());
  const int64_t room = limit - static_cast<int64_t>(prompt);
  const char* field = request.chat ? "messages" : "prompt";
  if (room < (request.max_tokens == 0 ? 0 : 1)) {
    throw FieldError(field, fmt::format("This model's maximum context length (max_model_len) is {} tokens. However, your request has {} input tokens. "
                                        "Please reduce the length of the {}.", limit, prompt, field));
  }
  if (request.max_tokens.value_or(room) > room) {
    throw FieldError("max_tokens", fmt::format("max_tokens is too large: {}. This model's maximum context length (max_model_len) is {} tokens and your request has {} "
                                               "input tokens ({} > {} - {}).", *request.max_tokens, limit, prompt, *request.max_tokens, limit, prompt));
  }
  sampling.set_max_tokens(static_cast<uint32_t>(request.max_tokens.value_or(room)));
}

void check_token_fields(const ApiRequest& request, const ModelEntry& model) {
  const auto vocab = static_cast<int32_t>(model.card.vocab_size());
  for (const auto& [token, bias] : request.sampling.logit_bias()) {
    if (token >= vocab) throw FieldError("logit_bias", fmt::format("logit_bias: token id {} is outside the vocabulary of {}", token, vocab));
  }
  for (int32_t token : request.sampling.stop_token_ids()) {
    if (token >= vocab) throw FieldError("stop_token_ids", fmt::format("stop_token_ids: {} is outside the vocabulary of {}", token, vocab));
  }
}

PreparedChoice prepare_prompt(const ApiRequest& request, const std::shared_ptr<const ModelEntry>& model, std::vector<int32_t> ids) {
  check_ids(*model, ids);
  PreparedChoice choice;
  choice.request.model = model;
  choice.request.sampling = request.sampling;
  rpc::SamplingParams& sampling = choice.request.sampling;
  apply_defaults(request, model->card.defaults(), sampling);
  set_max_tokens(request, *model, ids.size(), sampling);
  if (request.logprobs) sampling.set_logprobs(static_cast<uint32_t>(*request.logprobs));
  if (request.echo && request.logprobs) sampling.set_prompt_logprobs(static_cast<uint32_t>(*request.logprobs));
  choice.request.prompt = std::move(ids);
  choice.request.stop = request.stop;
  choice.request.priority = request.priority;
  return choice;
}

}  // namespace

std::vector<int32_t> encode_prompt(const ModelEntry& model, const std::string& text) {
  if (!model.tokenizer) throw FieldError("prompt", fmt::format("this model takes token ids only: {}", model.no_text));
  return model.tokenizer->encode(text);
}

std::vector<int32_t> encode_chat(const ModelEntry& model, const std::vector<Message>& messages, bool add_generation_prompt) {
  if (!model.tokenizer) throw FieldError("messages", fmt::format("this model takes token ids only: {}", model.no_text));
  if (!model.chat) throw FieldError("messages", model.no_chat);
  try {
    return model.tokenizer->encode(model.chat->render(messages, add_generation_prompt), {.add_special_tokens = false, .parse_special = true});
  } catch (const MessageError& error) {
    throw FieldError(error.param, error.what());
  }
}

std::vector<PreparedChoice> prepare(const ApiRequest& request, const std::shared_ptr<const ModelEntry>& model) {
  check_token_fields(request, *model);
  std::vector<PreparedChoice> choices;
  const auto add = [&](std::vector<int32_t> ids, const std::string& text) {
    PreparedChoice choice = prepare_prompt(request, model, std::move(ids));
    choice.prompt_text = text;
    for (int64_t i = 0; i < request.n; ++i) {
      choices.push_back(choice);
      choices.back().request.sampling.set_seed(request.sampling.seed() + static_cast<uint64_t>(i));
    }
  };
  if (request.chat) add(encode_chat(*model, request.messages, request.add_generation_prompt), "");
  for (const PromptInput& prompt : request.prompts) {
    if (const auto* text = std::get_if<std::string>(&prompt)) {
      add(encode_prompt(*model, *text), request.echo ? *text : "");
    } else {
      const auto& ids = std::get<std::vector<int32_t>>(prompt);
      add(ids, request.echo && model->tokenizer ? model->tokenizer->decode(ids) : "");
    }
  }
  return choices;
}

}  // namespace accrete::coordinator
