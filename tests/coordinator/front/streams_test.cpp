// Requests over HTTP while clients and replicas come and go.
#include "tests/coordinator/front/front.h"

#include <set>

namespace accrete::coordinator {
namespace {

const json kStream = {{"model", "m"}, {"prompt", {10, 11, 12}}, {"max_tokens", 20}, {"stream", true}};
const json kWhole = {{"model", "m"}, {"prompt", {10, 11, 12}}, {"max_tokens", 20}};

json with(json body, const json& more) {
  body.update(more);
  return body;
}

TEST_F(FrontTest, a_streams_client_that_hangs_up_cancels_at_the_leader) {
  start();
  const auto leader = join();
  auto client = ask("/v1/completions", kStream);
  const rpc::Submit submit = leader->next_submit();
  EXPECT_EQ(submit.prompt_size(), 3);
  EXPECT_EQ(submit.sampling().max_tokens(), 20u);
  leader->send(submit.request_id(), {20});
  ASSERT_TRUE(client->wait_for("text_completion"));
  client->hang_up();
  EXPECT_EQ(leader->next_cancel(), submit.request_id());
  // What is still on its way for it hurts nobody, and its end makes room.
  leader->send(submit.request_id(), {21});
  leader->send(submit.request_id(), {}, rpc::FINISH_ABORT);
  auto other = ask("/v1/completions", kWhole);
  const rpc::Submit next = leader->next_submit();
  EXPECT_NE(next.request_id(), submit.request_id());
  leader->send(next.request_id(), {20, 21}, rpc::FINISH_LENGTH);
  const Answer answer = read_answer(*other);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.value()["usage"]["completion_tokens"], 2);
  EXPECT_EQ(replicas()[0]["requests"], 0);
}

TEST_F(FrontTest, a_client_that_hangs_up_before_its_whole_answer_cancels_each_of_its_choices) {
  start();
  const auto leader = join();
  auto client = ask("/v1/completions", with(kWhole, {{"n", 2}, {"prompt", {{10, 11}, {12}}}}));
  std::set<uint64_t> open, cancelled;
  for (int i = 0; i < 4; ++i) open.insert(leader->next_submit().request_id());
  EXPECT_EQ(open.size(), 4u);
  client->hang_up();
  for (int i = 0; i < 4; ++i) cancelled.insert(leader->next_cancel());
  EXPECT_EQ(cancelled, open);
}

TEST_F(FrontTest, a_chat_whose_client_hangs_up_is_cancelled_too) {
  CoordinatorOptions options;
  options.chat_template = "chatml";
  start(options);
  const auto leader = join();
  auto client = ask("/v1/chat/completions", {{"messages", {{{"role", "user"}, {"content", "Hi"}}}}, {"stream", true}});
  const uint64_t id = leader->next_submit().request_id();
  ASSERT_TRUE(client->wait_for("\"role\":\"assistant\""));
  client->hang_up();
  EXPECT_EQ(leader->next_cancel(), id);
}

TEST_F(FrontTest, a_replica_that_dies_ends_its_own_requests_with_an_error_and_the_other_serves_on) {
  start();
  auto dying = join();
  const auto living = join();
  // Equal replicas take requests in turn: the one with more free pages is always the other one.
  auto first = ask("/v1/completions", kStream);
  const uint64_t lost_id = dying->next_submit().request_id();
  auto second = ask("/v1/completions", kStream);
  const uint64_t kept_id = living->next_submit().request_id();
  auto third = ask("/v1/completions", kWhole);
  dying->next_submit();
  dying->send(lost_id, {20});
  living->send(kept_id, {20});
  ASSERT_TRUE(first->wait_for("text_completion"));
  ASSERT_TRUE(second->wait_for("text_completion"));
  const std::string id = dying->id();
  dying->die();

  const std::vector<json> broken = read_events(*first);
  ASSERT_GE(broken.size(), 2u);
  EXPECT_EQ(broken.back()["error"]["code"], 503);
  EXPECT_NE(broken.back()["error"]["message"].get<std::string>().find("replica " + id + " died"), std::string::npos) << broken.back();
  const Answer whole = read_answer(*third);
  EXPECT_EQ(whole.status, 503);
  EXPECT_NE(whole.value()["error"]["message"].get<std::string>().find("replica " + id + " died"), std::string::npos) << whole.body;

  living->send(kept_id, {21}, rpc::FINISH_LENGTH);
  const std::vector<json> good = read_events(*second);
  ASSERT_GE(good.size(), 3u);
  EXPECT_EQ(good.back(), "[DONE]");
  EXPECT_EQ(good[good.size() - 2]["choices"][0]["finish_reason"], "length");
  auto later = ask("/v1/completions", kWhole);
  living->send(living->next_submit().request_id(), {20}, rpc::FINISH_STOP);
  EXPECT_EQ(read_answer(*later).status, 200);
  EXPECT_EQ(replicas().size(), 1u);
}

TEST_F(FrontTest, without_a_replica_the_answer_is_503_and_what_waits_is_told) {
  start();
  EXPECT_EQ(post("/v1/completions", kWhole).status, 503);
  EXPECT_EQ(get("/health").status, 503);
  auto leader = join(small_hello("m", 1));
  EXPECT_EQ(get("/health").status, 200);
  std::vector<std::unique_ptr<net::RawClient>> clients;
  for (int i = 0; i < 2; ++i) {
    clients.push_back(ask("/v1/completions", kWhole));
    leader->next_submit();
  }
  clients.push_back(ask("/v1/completions", kWhole));  // waits at the coordinator
  wait_queued(1);
  leader->die();
  for (const auto& client : clients) EXPECT_EQ(read_answer(*client).status, 503);
  EXPECT_EQ(post("/v1/completions", kWhole).status, 503);
  EXPECT_EQ(get("/health").status, 503);
  const auto again = join();
  EXPECT_EQ(get("/health").status, 200);
}

TEST_F(FrontTest, a_full_queue_answers_429_with_retry_after) {
  CoordinatorOptions options;
  options.max_queued = 1;
  start(options);
  const auto leader = join(small_hello("m", 1));
  std::vector<std::unique_ptr<net::RawClient>> clients;
  std::vector<uint64_t> ids;
  for (int i = 0; i < 2; ++i) {
    clients.push_back(ask("/v1/completions", kWhole));
    ids.push_back(leader->next_submit().request_id());
  }
  clients.push_back(ask("/v1/completions", kWhole));
  wait_queued(1);
  for (const json& body : {kWhole, kStream}) {
    const Answer full = post("/v1/completions", body);
    EXPECT_EQ(full.status, 429);
    EXPECT_NE(full.head.find("\r\nRetry-After: 1\r\n"), std::string::npos) << full.head;
    EXPECT_EQ(full.value()["error"]["type"], "rate_limit_error");
  }
  EXPECT_TRUE(leader->nothing_came());
  leader->send(ids[0], {20}, rpc::FINISH_LENGTH);
  EXPECT_EQ(read_answer(*clients[0]).status, 200);
  leader->send(leader->next_submit().request_id(), {20}, rpc::FINISH_LENGTH);  // the one that waited
  EXPECT_EQ(read_answer(*clients[2]).status, 200);
  leader->send(ids[1], {20}, rpc::FINISH_LENGTH);
  EXPECT_EQ(read_answer(*clients[1]).status, 200);
}

TEST_F(FrontTest, half_of_a_batch_that_finds_the_queue_full_is_taken_back) {
  CoordinatorOptions options;
  options.max_queued = 1;
  start(options);
  const auto leader = join(small_hello("m", 1));
  EXPECT_EQ(post("/v1/completions", with(kWhole, {{"n", 4}})).status, 429);  // two at the leader, one waits, the fourth is one too many
  std::set<uint64_t> open, cancelled;
  for (int i = 0; i < 2; ++i) open.insert(leader->next_submit().request_id());
  for (int i = 0; i < 2; ++i) cancelled.insert(leader->next_cancel());
  EXPECT_EQ(cancelled, open);
  EXPECT_EQ(get("/v1/cluster").value()["queued"], 0);
}

TEST_F(FrontTest, a_client_that_hangs_up_in_the_queue_never_reaches_the_leader) {
  start();
  const auto leader = join(small_hello("m", 1));
  auto first = ask("/v1/completions", kWhole);
  auto second = ask("/v1/completions", kWhole);
  const uint64_t id = leader->next_submit().request_id();
  leader->next_submit();
  auto waits = ask("/v1/completions", kWhole);
  wait_queued(1);
  waits->hang_up();
  wait_queued(0);
  leader->send(id, {20}, rpc::FINISH_LENGTH);
  EXPECT_EQ(read_answer(*first).status, 200);
  EXPECT_TRUE(leader->nothing_came());
}

TEST_F(FrontTest, leaders_that_speak_of_requests_they_do_not_have_hurt_nobody) {
  start();
  const auto mine = join(), other = join();
  auto client = ask("/v1/completions", kWhole);
  const uint64_t id = mine->next_submit().request_id();
  other->send(id, {30}, rpc::FINISH_LENGTH);    // another replica's
  mine->send(id + 100, {30}, rpc::FINISH_STOP); // nobody's
  mine->send(id, {20, 21}, rpc::FINISH_STOP);
  mine->send(id, {22}, rpc::FINISH_STOP);       // after its end
  const Answer answer = read_answer(*client);
  EXPECT_EQ(answer.status, 200);
  EXPECT_EQ(answer.value()["usage"]["completion_tokens"], 2);
  EXPECT_EQ(get("/health").status, 200);
}

TEST_F(FrontTest, requests_for_a_model_without_replicas_do_not_hold_up_another_model) {
  start();
  auto a = join(small_hello("a", 1));
  const auto b = join(small_hello("b", 1));
  std::vector<std::unique_ptr<net::RawClient>> clients;
  for (int i = 0; i < 2; ++i) {
    clients.push_back(ask("/v1/completions", with(kWhole, {{"model", "a"}})));
    a->next_submit();
  }
  clients.push_back(ask("/v1/completions", with(kWhole, {{"model", "a"}})));  // waits for a
  wait_queued(1);
  auto other = ask("/v1/completions", with(kWhole, {{"model", "b"}}));
  b->send(b->next_submit().request_id(), {20}, rpc::FINISH_STOP);
  EXPECT_EQ(read_answer(*other).status, 200);
  a->die();
  for (const auto& client : clients) EXPECT_EQ(read_answer(*client).status, 503);
  EXPECT_EQ(post("/v1/completions", with(kWhole, {{"model", "a"}})).status, 503);
}

}  // namespace
}  // namespace accrete::coordinator
