// Requests as clients send them, wrong ones above all: each is refused by the name of its field.
#include "coordinator/api/request_json.h"

#include <gtest/gtest.h>

namespace accrete::coordinator {
namespace {

struct BadRequest {
  const char* body;
  const char* param;
};

template <class Parse>
void expect_refused(Parse parse, std::initializer_list<BadRequest> cases) {
  for (const BadRequest& bad : cases) {
    try {
      parse(bad.body);
      ADD_FAILURE() << bad.body << " was taken";
    } catch (const FieldError& error) {
      EXPECT_EQ(error.param, bad.param) << bad.body << ": " << error.what();
      EXPECT_STRNE(error.what(), "");
    }
  }
}

TEST(completion_request, wrong_fields_are_named) {
  expect_refused(parse_completion_request, {
      {"", ""}, {"{", ""}, {"[]", ""}, {"null", ""}, {"\"text\"", ""}, {"{\"prompt\": \"a\"", ""}, {"{\"prompt\": \"\xff\"}", ""},
      {"{}", "prompt"}, {R"({"prompt": null})", "prompt"}, {R"({"prompt": 5})", "prompt"}, {R"({"prompt": {}})", "prompt"}, {R"({"prompt": []})", "prompt"},
      {R"({"prompt": [1, "a"]})", "prompt"}, {R"({"prompt": [-1]})", "prompt"}, {R"({"prompt": [1.5]})", "prompt"}, {R"({"prompt": [99999999999]})", "prompt"},
      {R"({"prompt": ["a", 5]})", "prompt[1]"}, {R"({"prompt": [[1], [true]]})", "prompt[1]"},
      {R"({"prompt": "a", "model": 5})", "model"}, {R"({"prompt": "a", "max_tokens": "5"})", "max_tokens"}, {R"({"prompt": "a", "max_tokens": 0})", "max_tokens"},
      {R"({"prompt": "a", "max_tokens": -1})", "max_tokens"}, {R"({"prompt": "a", "max_tokens": 1.5})", "max_tokens"}, {R"({"prompt": "a", "max_tokens": 1e300})", "max_tokens"},
      {R"({"prompt": "a", "temperature": "hot"})", "temperature"}, {R"({"prompt": "a", "temperature": -0.1})", "temperature"}, {R"({"prompt": "a", "temperature": 1e9})", "temperature"},
      {R"({"prompt": "a", "top_p": 0})", "top_p"}, {R"({"prompt": "a", "top_p": 1.1})", "top_p"}, {R"({"prompt": "a", "top_k": -2})", "top_k"}, {R"({"prompt": "a", "top_k": 1.5})", "top_k"},
      {R"({"prompt": "a", "min_p": -0.1})", "min_p"}, {R"({"prompt": "a", "min_p": 2})", "min_p"}, {R"({"prompt": "a", "n": 0})", "n"}, {R"({"prompt": "a", "n": 129})", "n"}, {R"({"prompt": "a", "n": "2"})", "n"},
      {R"({"prompt": "a", "stop": 5})", "stop"}, {R"({"prompt": "a", "stop": [5]})", "stop"}, {R"({"prompt": "a", "stop_token_ids": 5})", "stop_token_ids"}, {R"({"prompt": "a", "stop_token_ids": ["x"]})", "stop_token_ids"},
      {R"({"prompt": "a", "seed": "x"})", "seed"}, {R"({"prompt": "a", "seed": 1.5})", "seed"}, {R"({"prompt": "a", "logprobs": 21})", "logprobs"}, {R"({"prompt": "a", "logprobs": true})", "logprobs"}, {R"({"prompt": "a", "logprobs": -1})", "logprobs"},
      {R"({"prompt": "a", "echo": 1})", "echo"}, {R"({"prompt": "a", "presence_penalty": 3})", "presence_penalty"}, {R"({"prompt": "a", "frequency_penalty": -3})", "frequency_penalty"},
      {R"({"prompt": "a", "repetition_penalty": 0})", "repetition_penalty"}, {R"({"prompt": "a", "repetition_penalty": "x"})", "repetition_penalty"},
      {R"({"prompt": "a", "logit_bias": []})", "logit_bias"}, {R"({"prompt": "a", "logit_bias": {"x": 1}})", "logit_bias"}, {R"({"prompt": "a", "logit_bias": {"5": 101}})", "logit_bias"}, {R"({"prompt": "a", "logit_bias": {"5": "x"}})", "logit_bias"},
      {R"({"prompt": "a", "ignore_eos": "yes"})", "ignore_eos"}, {R"({"prompt": "a", "min_tokens": -1})", "min_tokens"}, {R"({"prompt": "a", "stream": "true"})", "stream"},
      {R"({"prompt": "a", "stream_options": {}})", "stream_options"}, {R"({"prompt": "a", "stream": true, "stream_options": 5})", "stream_options"},
      {R"({"prompt": "a", "stream": true, "stream_options": {"include_usage": 1}})", "stream_options.include_usage"},
      {R"({"prompt": "a", "suffix": "b"})", "suffix"}, {R"({"prompt": "a", "best_of": 3})", "best_of"}, {R"({"prompt": "a", "user": 5})", "user"}, {R"({"prompt": "a", "priority": "high"})", "priority"},
  });
}

TEST(chat_request, wrong_fields_are_named) {
  expect_refused(parse_chat_request, {
      {"{}", "messages"}, {R"({"messages": "a"})", "messages"}, {R"({"messages": []})", "messages"}, {R"({"messages": ["a"]})", "messages[0]"},
      {R"({"messages": [{"content": "a"}]})", "messages[0].role"}, {R"({"messages": [{"role": 5}]})", "messages[0].role"},
      {R"({"messages": [{"role": "user", "content": 5}]})", "messages[0].content"}, {R"({"messages": [{"role": "user", "content": [5]}]})", "messages[0].content[0]"},
      {R"({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]})", "messages[0].content[0].type"},
      {R"({"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]})", "messages[0].content[0].text"},
      {R"({"messages": [{"role": "user", "content": "a"}], "logprobs": 5})", "logprobs"},
      {R"({"messages": [{"role": "user", "content": "a"}], "top_logprobs": 5})", "top_logprobs"},
      {R"({"messages": [{"role": "user", "content": "a"}], "max_completion_tokens": 0})", "max_completion_tokens"},
  });
}

TEST(completion_request, deep_nesting_is_refused) {
  EXPECT_THROW(parse_completion_request("{\"prompt\": " + std::string(100000, '[') + std::string(100000, ']') + "}"), FieldError);
}

TEST(completion_request, fields_arrive) {
  const ApiRequest request = parse_completion_request(
      R"({"model": "m", "prompt": [[1, 2], [3]], "max_tokens": 7, "temperature": 0.5, "n": 2, "stop": ["x", "y"], "seed": -1, "logit_bias": {"5": -3},
          "stream": true, "stream_options": {"include_usage": true}, "unknown_field": {"a": [1]}, "top_p": null})");
  EXPECT_EQ(request.model, "m");
  ASSERT_EQ(request.prompts.size(), 2u);
  EXPECT_EQ(std::get<std::vector<int32_t>>(request.prompts[0]), (std::vector<int32_t>{1, 2}));
  EXPECT_EQ(request.max_tokens, 7);
  EXPECT_FLOAT_EQ(request.sampling.temperature(), 0.5f);
  EXPECT_EQ(request.n, 2);
  EXPECT_EQ(request.stop, (std::vector<std::string>{"x", "y"}));
  EXPECT_EQ(request.sampling.seed(), UINT64_MAX);
  EXPECT_FLOAT_EQ(request.sampling.logit_bias().at(5), -3.0f);
  EXPECT_TRUE(request.stream && request.include_usage);
  EXPECT_FALSE(request.has_top_p);
}

TEST(chat_request, text_parts_are_joined) {
  const ApiRequest request = parse_chat_request(
      R"({"messages": [{"role": "developer", "content": "s"}, {"role": "user", "content": [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]}]})");
  ASSERT_EQ(request.messages.size(), 2u);
  EXPECT_EQ(request.messages[0].role, "system");
  EXPECT_EQ(request.messages[1].content, "ab");
  EXPECT_FALSE(request.max_tokens.has_value());
}

}  // namespace
}  // namespace accrete::coordinator
