// Requests of /v1/completions and /v1/chat/completions as they come from clients. Pure: no model is needed to parse one.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "coordinator/api/fields.h"
#include "coordinator/text/chat_template.h"
#include "net/proto/accrete.pb.h"

namespace accrete::coordinator {

using PromptInput = std::variant<std::string, std::vector<int32_t>>;

struct ApiRequest {
  bool chat = false;
  std::string model;
  std::vector<PromptInput> prompts;     // completions
  std::vector<Message> messages;        // chat
  bool add_generation_prompt = true;    // chat
  rpc::SamplingParams sampling;         // without max_tokens; defaults filled in where the client said nothing
  std::optional<int64_t> max_tokens;
  bool has_temperature = false, has_top_p = false, has_top_k = false, has_repetition_penalty = false;  // else the model's own defaults count
  std::vector<std::string> stop;
  int64_t n = 1;
  bool echo = false;
  bool stream = false;
  bool include_usage = false;
  std::optional<int64_t> logprobs;      // top-n beside each token
  int32_t priority = 0;
};

// Throws FieldError.
ApiRequest parse_completion_request(std::string_view body);
ApiRequest parse_chat_request(std::string_view body);

// messages of a chat (also for /tokenize).
std::vector<Message> parse_messages(const Fields& fields);

}  // namespace accrete::coordinator
