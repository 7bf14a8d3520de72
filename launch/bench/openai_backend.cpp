#include "launch/bench/openai_backend.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

namespace accrete::launch {
namespace {

std::string request_body(const OpenAiTarget& target, const BenchPrompt& prompt) {
  const nlohmann::json body = {{"model", target.model}, {"prompt", prompt.tokens}, {"max_tokens", prompt.output_len},
                               {"temperature", target.temperature}, {"ignore_eos", target.ignore_eos}, {"stream", true},
                               {"stream_options", {{"include_usage", true}}}};
  return body.dump();
}

// The message of an OpenAI error object, or the body's start.
std::string error_text(const HttpAnswer& answer) {
  const nlohmann::json json = nlohmann::json::parse(answer.body, nullptr, false);
  if (json.is_object() && json.contains("error") && json["error"].is_object()) {
    return fmt::format("{}: {}", answer.status, json["error"].value("message", answer.body));
  }
  return fmt::format("{}: {}", answer.status, answer.body.substr(0, 200));
}

void take_event(const std::string& event, const BenchClock& clock, RequestRecord& record) {
  const nlohmann::json json = nlohmann::json::parse(event, nullptr, false);
  if (!json.is_object()) return;
  if (json.contains("error")) {
    record.error = json["error"].is_object() ? json["error"].value("message", event) : event;
    return;
  }
  const auto choices = json.find("choices");
  if (choices != json.end() && choices->is_array() && !choices->empty()) record.token_times.push_back(clock.now());
  const auto usage = json.find("usage");
  if (usage == json.end() || !usage->is_object()) return;
  record.input_tokens = usage->value("prompt_tokens", record.input_tokens);
  record.output_tokens = usage->value("completion_tokens", record.output_tokens);
  record.compression_ratio = usage->value("compression_ratio", record.compression_ratio);
}

boost::asio::awaitable<RequestRecord> send(OpenAiTarget target, BenchPrompt prompt, const BenchClock& clock) {
  RequestRecord record;
  record.sent = clock.now();
  bool complete = false;
  try {
    const auto on_event = [&](const std::string& event) {
      if (event == "[DONE]") complete = true;
      else take_event(event, clock, record);
    };
    const HttpAnswer answer = co_await post_events(target.server, target.endpoint, request_body(target, prompt), on_event);
    if (answer.status != 200) record.error = error_text(answer);
    else if (!complete && record.error.empty()) record.error = "the stream ended without [DONE]";
  } catch (const std::exception& error) {
    record.error = fmt::format("{}:{}: {}", target.server.host, target.server.port, error.what());
  }
  record.ended = clock.now();
  co_return record;
}

}  // namespace

SendFn openai_backend(OpenAiTarget target) {
  return [target = std::move(target)](const BenchPrompt& prompt, const BenchClock& clock) { return send(target, prompt, clock); };
}

}  // namespace accrete::launch
