#include "coordinator/api/request_json.h"

#include <fmt/format.h>

#include <charconv>
#include <random>

namespace accrete::coordinator {
namespace {

using nlohmann::json;

constexpr int64_t kMaxChoices = 128, kMaxPrompts = 1024, kMaxTopLogprobs = 20, kMaxStops = 64;
constexpr int64_t kMaxTokens = 1 << 24;

std::vector<int32_t> token_ids(const json& list, const std::string& field) {
  std::vector<int32_t> ids;
  ids.reserve(list.size());
  for (const json& id : list) {
    if (!id.is_number_integer() || id.get<int64_t>() < 0 || id.get<int64_t>() > INT32_MAX) {
      throw FieldError(field, fmt::format("{}[{}] must be a token id", field, ids.size()));
    }
    ids.push_back(static_cast<int32_t>(id.get<int64_t>()));
  }
  return ids;
}

std::vector<PromptInput> parse_prompts(const Fields& fields) {
  if (!fields.has("prompt")) throw FieldError("prompt", "prompt is missing");
  const json& prompt = fields.at("prompt");
  if (prompt.is_string()) return {prompt.get<std::string>()};
  if (!prompt.is_array()) throw FieldError("prompt", "prompt must be a string, a list of strings, a list of token ids or a list of such lists");
  if (prompt.empty()) throw FieldError("prompt", "prompt is an empty list");
  if (prompt[0].is_number()) return {token_ids(prompt, "prompt")};
  if (static_cast<int64_t>(prompt.size()) > kMaxPrompts) throw FieldError("prompt", fmt::format("prompt holds more than {} prompts", kMaxPrompts));
  std::vector<PromptInput> prompts;
  for (size_t i = 0; i < prompt.size(); ++i) {
    const std::string field = fmt::format("prompt[{}]", i);
    if (prompt[i].is_string()) prompts.emplace_back(prompt[i].get<std::string>());
    else if (prompt[i].is_array()) prompts.emplace_back(token_ids(prompt[i], field));
    else throw FieldError(field, field + " must be a string or a list of token ids");
  }
  return prompts;
}

std::vector<std::string> parse_stops(const Fields& fields) {
  if (!fields.has("stop")) return {};
  const json& stop = fields.at("stop");
  if (stop.is_string()) return {stop.get<std::string>()};
  if (!stop.is_array()) throw FieldError("stop", "stop must be a string or a list of strings");
  if (static_cast<int64_t>(stop.size()) > kMaxStops) throw FieldError("stop", fmt::format("stop holds more than {} strings", kMaxStops));
  std::vector<std::string> stops;
  for (const json& one : stop) {
    if (!one.is_string()) throw FieldError("stop", fmt::format("stop[{}] must be a string", stops.size()));
    stops.push_back(one.get<std::string>());
  }
  return stops;
}

void parse_logit_bias(const Fields& fields, rpc::SamplingParams& sampling) {
  if (!fields.has("logit_bias")) return;
  const json& biases = fields.at("logit_bias");
  if (!biases.is_object()) throw FieldError("logit_bias", "logit_bias must be an object of token ids and biases");
  for (const auto& [key, value] : biases.items()) {
    int32_t token = -1;
    const auto end = std::from_chars(key.data(), key.data() + key.size(), token);
    if (end.ec != std::errc() || end.ptr != key.data() + key.size() || token < 0) throw FieldError("logit_bias", fmt::format("logit_bias: '{}' is no token id", key));
    if (!value.is_number() || !(value.get<double>() >= -100.0 && value.get<double>() <= 100.0)) {
      throw FieldError("logit_bias", fmt::format("logit_bias.{} must be in [-100, 100]", key));
    }
    (*sampling.mutable_logit_bias())[token] = value.get<float>();
  }
}

uint64_t random_seed() {
  static thread_local std::mt19937_64 generator(std::random_device{}());
  return generator();
}

void parse_sampling(const Fields& fields, ApiRequest& request) {
  rpc::SamplingParams& s = request.sampling;
  request.has_temperature = fields.has("temperature");
  request.has_top_p = fields.has("top_p");
  request.has_top_k = fields.has("top_k");
  request.has_repetition_penalty = fields.has("repetition_penalty");
  s.set_temperature(static_cast<float>(fields.number("temperature", 0.0, 100.0).value_or(1.0)));
  s.set_top_p(static_cast<float>(fields.number("top_p", 0.0, 1.0).value_or(1.0)));
  if (request.has_top_p && s.top_p() <= 0.0f) throw FieldError("top_p", "top_p must be in (0, 1]");
  s.set_top_k(static_cast<int32_t>(fields.integer("top_k", -1, INT32_MAX).value_or(0)));
  s.set_min_p(static_cast<float>(fields.number("min_p", 0.0, 1.0).value_or(0.0)));
  s.set_presence_penalty(static_cast<float>(fields.number("presence_penalty", -2.0, 2.0).value_or(0.0)));
  s.set_frequency_penalty(static_cast<float>(fields.number("frequency_penalty", -2.0, 2.0).value_or(0.0)));
  s.set_repetition_penalty(static_cast<float>(fields.number("repetition_penalty", 0.0, 1e6).value_or(1.0)));
  if (s.repetition_penalty() <= 0.0f) throw FieldError("repetition_penalty", "repetition_penalty must be more than 0");
  s.set_seed(fields.seed("seed").value_or(random_seed()));
  s.set_min_tokens(static_cast<uint32_t>(fields.integer("min_tokens", 0, kMaxTokens).value_or(0)));
  s.set_ignore_eos(fields.boolean("ignore_eos").value_or(false));
  if (fields.has("stop_token_ids")) {
    if (!fields.at("stop_token_ids").is_array()) throw FieldError("stop_token_ids", "stop_token_ids must be a list of token ids");
    for (int32_t id : token_ids(fields.at("stop_token_ids"), "stop_token_ids")) s.add_stop_token_ids(id);
  }
  parse_logit_bias(fields, s);
}

void parse_shared(const Fields& fields, ApiRequest& request) {
  request.model = fields.string("model").value_or("");
  fields.string("user");
  parse_sampling(fields, request);
  request.stop = parse_stops(fields);
  request.n = fields.integer("n", 1, kMaxChoices).value_or(1);
  request.stream = fields.boolean("stream").value_or(false);
  request.priority = static_cast<int32_t>(fields.integer("priority", INT32_MIN, INT32_MAX).value_or(0));
  if (!fields.has("stream_options")) return;
  if (!fields.at("stream_options").is_object()) throw FieldError("stream_options", "stream_options must be an object");
  if (!request.stream) throw FieldError("stream_options", "stream_options is allowed only with stream");
  request.include_usage = Fields(fields.at("stream_options"), "stream_options.").boolean("include_usage").value_or(false);
}

// A string, or a list of {"type": "text", "text": ...}.
std::string parse_content(const Fields& message, const std::string& field) {
  if (!message.has("content")) return "";
  const json& content = message.at("content");
  if (content.is_string()) return content.get<std::string>();
  if (!content.is_array()) throw FieldError(field, field + " must be a string or a list of text parts");
  std::string text;
  for (size_t i = 0; i < content.size(); ++i) {
    const std::string part = fmt::format("{}[{}]", field, i);
    if (!content[i].is_object()) throw FieldError(part, part + " must be an object");
    const Fields fields(content[i], part + ".");
    const std::string type = fields.string("type").value_or("");
    if (type != "text") throw FieldError(part + ".type", fmt::format("{}.type: '{}' is not supported, text is", part, type));
    text += fields.string("text").value_or("");
  }
  return text;
}

}  // namespace

std::vector<Message> parse_messages(const Fields& fields) {
  if (!fields.has("messages")) throw FieldError("messages", "messages is missing");
  const json& list = fields.at("messages");
  if (!list.is_array()) throw FieldError("messages", "messages must be a list");
  if (list.empty()) throw FieldError("messages", "messages is an empty list");
  std::vector<Message> messages;
  for (size_t i = 0; i < list.size(); ++i) {
    const std::string field = fmt::format("messages[{}]", i);
    if (!list[i].is_object()) throw FieldError(field, field + " must be an object");
    const Fields message(list[i], field + ".");
    auto role = message.string("role");
    if (!role) throw FieldError(field + ".role", field + ".role is missing");
    if (*role == "developer") role = "system";  // OpenAI's newer name for it
    messages.push_back({*role, parse_content(message, field + ".content")});
  }
  return messages;
}

ApiRequest parse_completion_request(std::string_view body) {
  const json object = parse_object(body);
  const Fields fields(object);
  ApiRequest request;
  parse_shared(fields, request);
  request.prompts = parse_prompts(fields);
  request.echo = fields.boolean("echo").value_or(false);
  if (!fields.string("suffix").value_or("").empty()) throw FieldError("suffix", "suffix is not supported");
  if (fields.integer("best_of", 1, kMaxChoices).value_or(request.n) != request.n) throw FieldError("best_of", "best_of must equal n");
  if (fields.has("logprobs") && fields.at("logprobs").is_boolean()) throw FieldError("logprobs", "logprobs must be an integer");
  request.logprobs = fields.integer("logprobs", 0, kMaxTopLogprobs);
  request.max_tokens = fields.integer("max_tokens", request.echo ? 0 : 1, kMaxTokens).value_or(16);
  if (static_cast<int64_t>(request.prompts.size()) * request.n > kMaxPrompts) throw FieldError("n", fmt::format("n x prompts is over {}", kMaxPrompts));
  return request;
}

ApiRequest parse_chat_request(std::string_view body) {
  const json object = parse_object(body);
  const Fields fields(object);
  ApiRequest request;
  request.chat = true;
  parse_shared(fields, request);
  request.messages = parse_messages(fields);
  request.add_generation_prompt = fields.boolean("add_generation_prompt").value_or(true);
  request.max_tokens = fields.integer("max_completion_tokens", 1, kMaxTokens);
  if (!request.max_tokens) request.max_tokens = fields.integer("max_tokens", 1, kMaxTokens);
  const bool wanted = fields.boolean("logprobs").value_or(false);
  const auto top = fields.integer("top_logprobs", 0, kMaxTopLogprobs);
  if (top && !wanted) throw FieldError("top_logprobs", "top_logprobs needs logprobs to be true");
  if (wanted) request.logprobs = top.value_or(0);
  return request;
}

}  // namespace accrete::coordinator
