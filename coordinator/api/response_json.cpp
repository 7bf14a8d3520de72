#include "coordinator/api/response_json.h"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <utility>

#include "coordinator/text/utf8.h"

namespace accrete::coordinator {
namespace {

using json = nlohmann::ordered_json;

const char* finish_name(rpc::FinishReason reason) {
  switch (reason) {
    case rpc::FINISH_STOP: return "stop";
    case rpc::FINISH_LENGTH: return "length";
    case rpc::FINISH_ABORT: return "abort";
    default: return "error";
  }
}

json finish_json(rpc::FinishReason reason) { return reason == rpc::FINISH_NONE ? json(nullptr) : json(finish_name(reason)); }

const char* error_type(unsigned status) {
  switch (status) {
    case 401: return "authentication_error";
    case 404: return "not_found_error";
    case 429: return "rate_limit_error";
    case 500: return "internal_error";
    case 503: return "service_unavailable_error";
    default: return "invalid_request_error";
  }
}

std::string token_text(const Tokenizer* tokenizer, int32_t id) {
  return tokenizer ? replace_invalid(tokenizer->piece(id)) : "token_id:" + std::to_string(id);
}

// A prompt counts once, however many choices it has.
json usage_json(const ApiRequest& request, const std::vector<ChoiceState>& choices) {
  uint64_t prompt = 0, completion = 0;
  double slots = 0.0, cached = 0.0;
  for (const ChoiceState& choice : choices) {
    if (choice.index % request.n == 0) prompt += choice.usage.prompt_tokens();
    completion += choice.usage.completion_tokens();
    slots += choice.usage.kv_slots();
    cached += choice.usage.kv_slots() * choice.usage.compression_ratio();
  }
  return {{"prompt_tokens", prompt}, {"completion_tokens", completion}, {"total_tokens", prompt + completion},
          {"kv_slots", slots}, {"compression_ratio", slots > 0.0 ? cached / slots : 1.0}};
}

// Tokens of the same text (parts of characters all read U+FFFD) share a member: the likeliest counts, so that a token is beaten here when it is.
json top_object(const Tokenizer* tokenizer, const rpc::Token& token) {
  json top = json::object();
  const auto add = [&](int32_t id, float logprob) {
    json& member = top[token_text(tokenizer, id)];
    if (member.is_null() || member.get<float>() < logprob) member = logprob;
  };
  for (const rpc::TokenLogprob& entry : token.top()) add(entry.token(), entry.logprob());
  add(token.id(), token.logprob());
  return top;
}

size_t characters(const std::string& text) {
  return static_cast<size_t>(std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

// /v1/completions. `without`: how many of the first tokens have no logprob (the prompt's first). `offset` is in characters.
json completion_logprobs(const Tokenizer* tokenizer, const std::vector<rpc::Token>& tokens, size_t without, size_t& offset) {
  json texts = json::array(), logprobs = json::array(), tops = json::array(), offsets = json::array();
  for (size_t i = 0; i < tokens.size(); ++i) {
    const std::string text = token_text(tokenizer, tokens[i].id());
    texts.push_back(text);
    logprobs.push_back(i < without ? json(nullptr) : json(tokens[i].logprob()));
    tops.push_back(i < without ? json(nullptr) : top_object(tokenizer, tokens[i]));
    offsets.push_back(offset);
    offset += characters(text);
  }
  return {{"tokens", texts}, {"token_logprobs", logprobs}, {"top_logprobs", tops}, {"text_offset", offsets}};
}

std::vector<rpc::Token> joined(std::vector<rpc::Token> first, const std::vector<rpc::Token>& then) {
  first.insert(first.end(), then.begin(), then.end());
  return first;
}

json bytes_of(const std::string& text) {
  json bytes = json::array();
  for (char c : text) bytes.push_back(static_cast<uint8_t>(c));
  return bytes;
}

json chat_logprobs(const Tokenizer* tokenizer, const std::vector<rpc::Token>& tokens) {
  const auto entry = [&](int32_t id, float logprob) {
    return json{{"token", token_text(tokenizer, id)}, {"logprob", logprob}, {"bytes", bytes_of(tokenizer ? tokenizer->piece(id) : "")}};
  };
  json content = json::array();
  for (const rpc::Token& token : tokens) {
    json one = entry(token.id(), token.logprob());
    one["top_logprobs"] = json::array();
    for (const rpc::TokenLogprob& top : token.top()) one["top_logprobs"].push_back(entry(top.token(), top.logprob()));
    content.push_back(std::move(one));
  }
  return {{"content", content}};
}

json head_json(const AnswerHead& head, bool stream) {
  const char* object = !head.chat ? "text_completion" : stream ? "chat.completion.chunk" : "chat.completion";
  return {{"id", head.id}, {"object", object}, {"created", head.created}, {"model", head.model}};
}

std::string event(const json& value) { return "data: " + value.dump(-1, ' ', false, json::error_handler_t::replace) + "\n\n"; }

}  // namespace

std::string error_json(unsigned status, const std::string& message, const std::string& param) {
  const json value = {{"error", {{"message", message}, {"type", error_type(status)}, {"param", param.empty() ? json(nullptr) : json(param)}, {"code", status}}}};
  return value.dump(-1, ' ', false, json::error_handler_t::replace);
}

net::HttpResponse error_response(unsigned status, const std::string& message, const std::string& param) {
  net::HttpResponse response;
  response.status = status;
  response.body = error_json(status, message, param);
  if (status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (status == 429) response.headers.emplace_back("Retry-After", "1");
  return response;
}

unsigned status_of(rpc::ErrorCode code) {
  switch (code) {
    case rpc::ERROR_INVALID_ARGUMENT:
    case rpc::ERROR_TOO_LONG: return 400;
    case rpc::ERROR_UNAUTHORIZED: return 401;
    case rpc::ERROR_UNKNOWN_MODEL:
    case rpc::ERROR_NOT_FOUND: return 404;
    case rpc::ERROR_QUEUE_FULL: return 429;
    case rpc::ERROR_UNAVAILABLE:
    case rpc::ERROR_REPLICA_LOST: return 503;
    default: return 500;
  }
}

net::HttpResponse refusal_response(const Refusal& refusal) { return error_response(status_of(refusal.code), refusal.message, refusal.param); }

std::string stream_role(const AnswerHead& head, int64_t index) {
  json chunk = head_json(head, true);
  chunk["choices"] = json::array({{{"index", index}, {"delta", {{"role", "assistant"}, {"content", ""}}}, {"logprobs", nullptr}, {"finish_reason", nullptr}}});
  return event(chunk);
}

std::string stream_chunk(const AnswerHead& head, const ApiRequest& request, const Tokenizer* tokenizer, ChoiceState& choice, const Delta& delta) {
  json entry = {{"index", choice.index}};
  if (head.chat) entry["delta"] = delta.text.empty() && delta.finish != rpc::FINISH_NONE ? json::object() : json{{"content", delta.text}};
  else entry["text"] = delta.text;
  if (!request.logprobs) entry["logprobs"] = nullptr;
  else if (head.chat) entry["logprobs"] = chat_logprobs(tokenizer, delta.tokens);
  else entry["logprobs"] = completion_logprobs(tokenizer, joined(delta.prompt_tokens, delta.tokens), std::exchange(choice.unscored, 0), choice.text_offset);
  entry["finish_reason"] = finish_json(delta.finish);
  json chunk = head_json(head, true);
  chunk["choices"] = json::array({std::move(entry)});
  return event(chunk);
}

std::string stream_usage(const AnswerHead& head, const ApiRequest& request, const std::vector<ChoiceState>& choices) {
  json chunk = head_json(head, true);
  chunk["choices"] = json::array();
  chunk["usage"] = usage_json(request, choices);
  return event(chunk);
}

std::string whole_answer(const AnswerHead& head, const ApiRequest& request, const Tokenizer* tokenizer, std::vector<ChoiceState>& choices) {
  json answer = head_json(head, false);
  answer["choices"] = json::array();
  for (ChoiceState& choice : choices) {
    json entry = {{"index", choice.index}};
    if (head.chat) {
      entry["message"] = {{"role", "assistant"}, {"content", choice.text}};
      entry["logprobs"] = request.logprobs ? chat_logprobs(tokenizer, choice.tokens) : json(nullptr);
    } else {
      entry["text"] = choice.prompt_text + choice.text;
      size_t offset = 0;
      entry["logprobs"] = request.logprobs ? completion_logprobs(tokenizer, joined(choice.prompt, choice.tokens), choice.unscored, offset) : json(nullptr);
    }
    entry["finish_reason"] = finish_json(choice.finish);
    answer["choices"].push_back(std::move(entry));
  }
  answer["usage"] = usage_json(request, choices);
  return answer.dump(-1, ' ', false, json::error_handler_t::replace);
}

}  // namespace accrete::coordinator
