// /v1/completions with echo and logprobs: how evaluation programs ask a server for the log-likelihood of a text. The leader is a script that gives the
// prompt token at position i the log-probability score(i), as its own best guess at even positions and beaten by token 3 at odd ones.
#include <cmath>
#include <numeric>

#include "tests/coordinator/front/front.h"

namespace accrete::coordinator {
namespace {

using Ids = std::vector<int32_t>;

float score(size_t position) { return -0.125f * static_cast<float>(position); }

rpc::Token scored_token(int32_t id, size_t position) {
  rpc::Token token;
  token.set_id(id);
  token.set_logprob(score(position));
  rpc::TokenLogprob& best = *token.add_top();
  best.set_token(position % 2 == 0 ? id : 3);
  best.set_logprob(position % 2 == 0 ? score(position) : -0.0625f);
  best.set_rank(1);
  token.set_rank(position % 2 == 0 ? 1 : 2);
  return token;
}

// Answers a Submit as a leader does: the prompt's scores in two pieces, then `submit.max_tokens` tokens, 40, 41, ...
void answer(FakeLeader& leader, const rpc::Submit& submit) {
  const auto prompt = static_cast<size_t>(submit.prompt_size());
  rpc::TokenChunk first, last;
  first.set_request_id(submit.request_id());
  last.set_request_id(submit.request_id());
  if (submit.sampling().has_prompt_logprobs()) {
    for (size_t i = 1; i < prompt; ++i) *(i <= prompt / 2 ? first : last).add_prompt_tokens() = scored_token(submit.prompt(static_cast<int>(i)), i);
  }
  for (size_t i = 0; i < submit.sampling().max_tokens(); ++i) {
    rpc::Token& token = *last.add_tokens() = scored_token(40 + static_cast<int32_t>(i), prompt + i);
    if (!submit.sampling().has_logprobs()) token.clear_top();
  }
  last.set_finish(rpc::FINISH_LENGTH);
  leader.send(first);
  leader.send(last);
}

// What lm-eval's `local-completions` makes of a choice: the sum over the continuation, whether each of its tokens was the likeliest. It takes
// [context, -1): the last token is the one that max_tokens=1 has generated.
struct Likelihood {
  double sum = 0.0;
  bool greedy = true;
};
Likelihood likelihood_as_lm_eval(const json& choice, size_t context) {
  Likelihood found;
  const json& logprobs = choice["logprobs"];
  for (size_t i = context; i + 1 < logprobs["token_logprobs"].size(); ++i) {
    const double logprob = logprobs["token_logprobs"][i];
    double best = -INFINITY;
    for (const auto& [token, value] : logprobs["top_logprobs"][i].items()) best = std::max(best, value.get<double>());
    found.sum += logprob;
    found.greedy = found.greedy && logprob == best;
  }
  return found;
}

json request(const json& prompt, int max_tokens) {
  return {{"model", "m"}, {"prompt", prompt}, {"temperature", 0}, {"max_tokens", max_tokens}, {"logprobs", 1}, {"seed", 1234}, {"echo", true}};
}

class ScoringTest : public FrontTest {
 protected:
  void SetUp() override {
    start();
    leader_ = join();
  }
  // Posts, answers `count` submits, and returns the answer.
  Answer ask_and_answer(const json& body, int count = 1) {
    const auto client = ask("/v1/completions", body);
    for (int i = 0; i < count; ++i) {
      submits_.push_back(leader_->next_submit());
      answer(*leader_, submits_.back());
    }
    return read_answer(*client);
  }

  std::unique_ptr<FakeLeader> leader_;
  std::vector<rpc::Submit> submits_;
};

TEST_F(ScoringTest, a_batch_of_token_id_prompts_as_lm_eval_sends_it) {
  // Lengths differ, the context of each is its first tokens: 2, 3 and 1.
  const std::vector<Ids> prompts = {{50, 51, 52}, {60, 61, 62, 63, 64, 65}, {70, 71}};
  const size_t contexts[] = {2, 3, 1};
  const Answer got = ask_and_answer(request(prompts, 1), 3);
  ASSERT_EQ(got.status, 200) << got.body;
  const json choices = got.value()["choices"];
  ASSERT_EQ(choices.size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(Ids(submits_[i].prompt().begin(), submits_[i].prompt().end()), prompts[i]);
    EXPECT_EQ(submits_[i].sampling().max_tokens(), 1u);
    EXPECT_EQ(submits_[i].sampling().temperature(), 0.0f);
    EXPECT_EQ(submits_[i].sampling().prompt_logprobs(), 1u);
    const json& choice = choices[i];
    EXPECT_EQ(choice["index"], i);
    EXPECT_EQ(choice["finish_reason"], "length");
    const json& logprobs = choice["logprobs"];
    for (const char* list : {"tokens", "token_logprobs", "top_logprobs", "text_offset"}) EXPECT_EQ(logprobs[list].size(), prompts[i].size() + 1) << list;
    EXPECT_TRUE(logprobs["token_logprobs"][0].is_null());
    EXPECT_TRUE(logprobs["top_logprobs"][0].is_null());
    for (size_t at = 1; at <= prompts[i].size(); ++at) EXPECT_EQ(logprobs["token_logprobs"][at], score(at));
    double sum = 0.0;
    for (size_t at = contexts[i]; at < prompts[i].size(); ++at) sum += score(at);
    const Likelihood found = likelihood_as_lm_eval(choice, contexts[i]);
    EXPECT_EQ(found.sum, sum);
    EXPECT_EQ(found.greedy, i == 0);  // its one continued token stands at an even position
  }
  EXPECT_EQ(got.value()["usage"]["prompt_tokens"], 11);
  EXPECT_EQ(got.value()["usage"]["completion_tokens"], 3);
}

TEST_F(ScoringTest, no_tokens_at_all_scores_the_prompt_alone) {
  const Ids prompt = {50, 51, 52, 53};
  const Answer got = ask_and_answer(request(prompt, 0));
  ASSERT_EQ(got.status, 200) << got.body;
  EXPECT_EQ(submits_[0].sampling().max_tokens(), 0u);
  const json choice = got.value()["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "length");
  EXPECT_EQ(choice["logprobs"]["token_logprobs"], json({nullptr, score(1), score(2), score(3)}));
  EXPECT_EQ(got.value()["usage"]["completion_tokens"], 0);
}

TEST_F(ScoringTest, a_prompt_as_long_as_the_model_can_be_scored_and_not_continued) {
  Ids prompt(64);
  std::iota(prompt.begin(), prompt.end(), 100);
  EXPECT_EQ(ask_and_answer(request(prompt, 0)).status, 200);
  const Answer one = post("/v1/completions", request(prompt, 1));
  EXPECT_EQ(one.status, 400);
  EXPECT_NE(one.body.find("max_model_len"), std::string::npos) << one.body;
  prompt.push_back(1);
  EXPECT_EQ(post("/v1/completions", request(prompt, 0)).status, 400);
}

TEST_F(ScoringTest, a_prompt_of_one_token_has_nothing_to_score) {
  const Answer got = ask_and_answer(request(Ids{50}, 0));
  ASSERT_EQ(got.status, 200) << got.body;
  EXPECT_EQ(got.value()["choices"][0]["logprobs"]["token_logprobs"], json({nullptr}));
}

TEST_F(ScoringTest, a_text_prompt_is_echoed_and_its_tokens_add_up_to_it) {
  const std::string text = "The river caf\u00e9 \u4f60\u597d.";
  const Answer got = ask_and_answer(request(text, 0));
  ASSERT_EQ(got.status, 200) << got.body;
  const json choice = got.value()["choices"][0];
  EXPECT_EQ(choice["text"], text);
  EXPECT_EQ(choice["logprobs"]["tokens"].size(), static_cast<size_t>(submits_[0].prompt_size()));
}

TEST_F(ScoringTest, offsets_count_characters) {
  // Offsets are for clients that cut strings of characters, not bytes.
  const std::string first = "\u00e9\u00e9", second = " a";
  const json ids = post("/tokenize", {{"prompt", first}}).value()["tokens"];
  const Ids more = post("/tokenize", {{"prompt", second}}).value()["tokens"].get<Ids>();
  Ids prompt = ids.get<Ids>();
  const size_t boundary = prompt.size();
  prompt.insert(prompt.end(), more.begin(), more.end());
  const Answer got = ask_and_answer(request(prompt, 0));
  ASSERT_EQ(got.status, 200) << got.body;
  const json logprobs = got.value()["choices"][0]["logprobs"];
  ASSERT_EQ(logprobs["tokens"].size(), prompt.size());
  EXPECT_EQ(got.value()["choices"][0]["text"], first + second);
  EXPECT_EQ(logprobs["text_offset"][0], 0);
  EXPECT_EQ(logprobs["text_offset"][boundary], 2) << logprobs;
}

TEST_F(ScoringTest, tokens_of_the_same_text_do_not_hide_a_better_one) {
  // Tokens that are parts of characters all read U+FFFD. The likeliest of them counts under that name, not the one that was scored.
  const Ids bytes = post("/tokenize", {{"prompt", "\U0001f9ec\U0001f9ed"}}).value()["tokens"].get<Ids>();
  ASSERT_GE(bytes.size(), 2u);
  const auto client = ask("/v1/completions", request(Ids{50, bytes[0]}, 1));
  const rpc::Submit submit = leader_->next_submit();
  rpc::TokenChunk chunk;
  chunk.set_request_id(submit.request_id());
  rpc::Token& token = *chunk.add_prompt_tokens() = scored_token(bytes[0], 8);
  token.mutable_top(0)->set_token(bytes.back());
  token.mutable_top(0)->set_logprob(-0.5f);
  *chunk.add_tokens() = scored_token(40, 2);
  chunk.set_finish(rpc::FINISH_LENGTH);
  leader_->send(chunk);
  const json choice = read_answer(*client).value()["choices"][0];
  EXPECT_EQ(choice["logprobs"]["tokens"][1], "\ufffd");
  EXPECT_EQ(choice["logprobs"]["token_logprobs"][1], score(8));
  EXPECT_FALSE(likelihood_as_lm_eval(choice, 1).greedy) << choice;
}

TEST_F(ScoringTest, echo_without_logprobs_is_text_alone) {
  json body = request("The river", 0);
  body.erase("logprobs");
  const Answer got = ask_and_answer(body);
  ASSERT_EQ(got.status, 200) << got.body;
  EXPECT_FALSE(submits_[0].sampling().has_prompt_logprobs());
  EXPECT_EQ(got.value()["choices"][0]["text"], "The river");
  EXPECT_TRUE(got.value()["choices"][0]["logprobs"].is_null());
}

TEST_F(ScoringTest, max_tokens_0_needs_echo) {
  json body = request(Ids{50, 51}, 0);
  body["echo"] = false;
  const Answer got = post("/v1/completions", body);
  EXPECT_EQ(got.status, 400);
  EXPECT_EQ(got.value()["error"]["param"], "max_tokens");
}

TEST_F(ScoringTest, a_stream_echoes_the_prompts_logprobs_too) {
  for (const Ids& prompt : {Ids{50, 51, 52, 53, 54}, Ids{50}}) {
    json body = request(prompt, 2);
    const Answer whole = ask_and_answer(body);
    body["stream"] = true;
    const auto client = ask("/v1/completions", body);
    answer(*leader_, leader_->next_submit());
    json text = "", tokens = json::array(), logprobs = json::array(), tops = json::array(), offsets = json::array();
    for (const json& event : read_events(*client)) {
      if (event == "[DONE]" || event["choices"].empty()) continue;
      const json& choice = event["choices"][0];
      text = text.get<std::string>() + choice["text"].get<std::string>();
      for (const json& one : choice["logprobs"]["tokens"]) tokens.push_back(one);
      for (const json& one : choice["logprobs"]["token_logprobs"]) logprobs.push_back(one);
      for (const json& one : choice["logprobs"]["top_logprobs"]) tops.push_back(one);
      for (const json& one : choice["logprobs"]["text_offset"]) offsets.push_back(one);
    }
    const json choice = whole.value()["choices"][0];
    EXPECT_EQ(text, choice["text"]);
    EXPECT_EQ(tokens, choice["logprobs"]["tokens"]);
    EXPECT_EQ(logprobs, choice["logprobs"]["token_logprobs"]);
    EXPECT_EQ(tops, choice["logprobs"]["top_logprobs"]);
    EXPECT_EQ(offsets, choice["logprobs"]["text_offset"]);
  }
}

}  // namespace
}  // namespace accrete::coordinator
