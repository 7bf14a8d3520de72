// The leader over a scripted executor. Whatever happens to a step, the tokens that come out are the same.
#include "worker/engine/leader.h"

#include <gtest/gtest.h>

#include <map>
#include <random>
#include <thread>

#include "tests/worker/engine/scripted_executor.h"

namespace accrete::worker {
namespace {

// dry_steps: of how many steps the pool ran dry.
void every_answer_is_right(double dry_rate, const char* lookahead, unsigned seed, int& dry_steps) {
  ScriptedExecutor executor(dry_rate, seed);
  const auto alone = parallel::make_single();
  std::map<RequestId, RequestOutput> whole;
  Leader::Setup setup;
  setup.model = {kHeads, 1, kVocab, 512, {}};
  setup.options.max_num_seqs = 6;
  setup.options.max_num_batched_tokens = 40;
  setup.options.async_scheduling = lookahead;
  setup.ranks = {executor.info()};
  setup.sink = [&](std::vector<RequestOutput>&& outputs) {
    for (RequestOutput& output : outputs) {
      RequestOutput& mine = whole[output.id];
      mine.tokens.insert(mine.tokens.end(), output.tokens.begin(), output.tokens.end());
      if (output.finish != FinishReason::none) mine.finish = output.finish;
    }
  };
  Leader leader(std::move(setup), executor, *alone);
  std::mt19937 random(seed);
  std::map<RequestId, std::vector<int32_t>> prompts;
  for (RequestId id = 1; id <= 12; ++id) {
    Request request;
    request.id = id;
    request.prompt.resize(std::uniform_int_distribution<int>(1, 70)(random));
    for (int32_t& token : request.prompt) token = std::uniform_int_distribution<int32_t>(0, kVocab - 1)(random);
    request.max_tokens = 30;
    prompts[id] = request.prompt;
    leader.submit(std::move(request));
  }
  std::thread steps([&] { leader.run(); });
  while (!leader.idle()) std::this_thread::yield();
  leader.stop();
  steps.join();
  ASSERT_EQ(whole.size(), prompts.size());
  for (auto& [id, tokens] : prompts) {
    EXPECT_EQ(whole[id].finish, FinishReason::length);
    ASSERT_EQ(whole[id].tokens.size(), 30u);
    for (const TokenOut& token : whole[id].tokens) {
      ASSERT_EQ(token.id, next_token(tokens)) << "request " << id << " after " << tokens.size() << " tokens";
      tokens.push_back(token.id);
    }
  }
  EXPECT_EQ(leader.status().pages_free, std::vector<int64_t>{kPages});
  dry_steps = executor.dry_steps();
}

TEST(leader, steps_of_which_a_pool_ran_dry_are_done_again) {
  int all = 0;
  for (const char* lookahead : {"off", "on"}) {
    for (unsigned seed = 1; seed <= 8; ++seed) {
      int dry = 0;
      every_answer_is_right(0.0, lookahead, seed, dry);
      EXPECT_EQ(dry, 0);
      every_answer_is_right(0.1, lookahead, seed, dry);
      all += dry;
    }
  }
  EXPECT_GT(all, 30);
}

}  // namespace
}  // namespace accrete::worker
