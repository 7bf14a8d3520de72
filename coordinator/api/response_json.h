// Answers of the OpenAI endpoints as JSON text.
#pragma once

#include <string>
#include <vector>

#include "coordinator/api/generation.h"
#include "coordinator/api/request_json.h"
#include "net/http_server.h"

namespace accrete::coordinator {

// {"error": {...}} with the status that belongs to the code.
net::HttpResponse error_response(unsigned status, const std::string& message, const std::string& param = "");
net::HttpResponse refusal_response(const Refusal& refusal);
unsigned status_of(rpc::ErrorCode code);
std::string error_json(unsigned status, const std::string& message, const std::string& param);

// One answer's identity, the same in all its chunks.
struct AnswerHead {
  bool chat = false;
  std::string id;  // "cmpl-..." or "chatcmpl-..."
  int64_t created = 0;
  std::string model;
};

// A choice as far as it has come; for answers in one piece it collects everything.
struct ChoiceState {
  int64_t index = 0;
  std::string prompt_text;                 // echo
  std::vector<rpc::Token> prompt;          // echo with logprobs: the prompt's tokens, the first without a logprob
  std::string text;
  std::vector<rpc::Token> tokens;
  rpc::FinishReason finish = rpc::FINISH_NONE;
  rpc::Usage usage;
  std::string error;
  rpc::ErrorCode error_code = rpc::ERROR_UNSPECIFIED;
  size_t text_offset = 0;                  // of a stream: where the next token's text begins, in characters
  size_t unscored = 0;                     // how many of the next tokens have no logprob: 1 before the prompt's first
};

// `data: {...}\n\n` of a delta. `first`: a chat's opening chunk with the role.
std::string stream_chunk(const AnswerHead& head, const ApiRequest& request, const Tokenizer* tokenizer, ChoiceState& choice, const Delta& delta);
std::string stream_role(const AnswerHead& head, int64_t index);
std::string stream_usage(const AnswerHead& head, const ApiRequest& request, const std::vector<ChoiceState>& choices);
std::string whole_answer(const AnswerHead& head, const ApiRequest& request, const Tokenizer* tokenizer, std::vector<ChoiceState>& choices);

}  // namespace accrete::coordinator
