// Client programs on the frames port: what they ask and what comes.
#include "tests/coordinator/front/peer.h"

namespace accrete::coordinator {
namespace {

class RpcRequestsTest : public FrontTest {
 protected:
  void begin(CoordinatorOptions options = {}, uint32_t rows = 8) {
    start(std::move(options));
    leader_ = join(small_hello("m", rows));
    client_ = welcomed(front_->rpc_port());
  }
  rpc::Output next_output() {
    const auto frame = client_->next();
    EXPECT_TRUE(frame && frame->has_output()) << (frame ? frame->ShortDebugString() : "the connection ended");
    return frame ? frame->output() : rpc::Output();
  }

  std::unique_ptr<FakeLeader> leader_;
  std::unique_ptr<Peer> client_;
};

TEST_F(RpcRequestsTest, tokens_stream_as_they_come_or_come_at_once) {
  begin();
  for (const bool stream : {true, false}) {
    rpc::Frame frame = generate(5, {10, 11});
    frame.mutable_generate()->set_stream(stream);
    ASSERT_TRUE(client_->send(frame));
    const uint64_t id = leader_->next_submit().request_id();
    std::string text;
    std::vector<int32_t> tokens;
    leader_->send(id, {40});
    if (stream) {
      const rpc::Output first = next_output();
      EXPECT_EQ(first.finish(), rpc::FINISH_NONE);
      ASSERT_EQ(first.tokens_size(), 1);
      EXPECT_EQ(first.tokens(0).id(), 40);
      text = first.text();
    }
    leader_->send(id, {41, 42}, rpc::FINISH_LENGTH);
    const rpc::Output last = next_output();
    EXPECT_EQ(last.request_id(), 5u);
    EXPECT_EQ(last.finish(), rpc::FINISH_LENGTH);
    EXPECT_EQ(last.tokens_size(), stream ? 2 : 3);
    EXPECT_EQ(last.usage().prompt_tokens(), 2u);
    EXPECT_EQ(last.usage().completion_tokens(), 3u);
    EXPECT_EQ(text + last.text(), "FGH");
  }
}

TEST_F(RpcRequestsTest, a_prompt_is_scored_without_a_token_made) {
  begin();
  rpc::Frame frame = generate(5, {10, 11, 12});
  frame.mutable_generate()->mutable_sampling()->set_max_tokens(0);
  frame.mutable_generate()->mutable_sampling()->set_prompt_logprobs(0);
  ASSERT_TRUE(client_->send(frame));
  const rpc::Submit submit = leader_->next_submit();
  EXPECT_EQ(submit.sampling().max_tokens(), 0u);
  EXPECT_TRUE(submit.sampling().has_prompt_logprobs());
  rpc::TokenChunk chunk;
  chunk.set_request_id(submit.request_id());
  for (const int32_t id : {11, 12}) {
    rpc::Token& token = *chunk.add_prompt_tokens();
    token.set_id(id);
    token.set_logprob(-0.5f);
  }
  chunk.set_finish(rpc::FINISH_LENGTH);
  leader_->send(chunk);
  const rpc::Output output = next_output();
  ASSERT_EQ(output.prompt_tokens_size(), 2);
  EXPECT_EQ(output.prompt_tokens(1).id(), 12);
  EXPECT_EQ(output.prompt_tokens(1).logprob(), -0.5f);
  EXPECT_EQ(output.finish(), rpc::FINISH_LENGTH);
}

TEST_F(RpcRequestsTest, cancelling_ends_the_request_with_what_there_is) {
  begin();
  ASSERT_TRUE(client_->send(generate(5, {10})));
  const uint64_t id = leader_->next_submit().request_id();
  rpc::Frame cancel;
  for (const uint64_t mine : {99, 5}) {  // nobody's, then this one
    cancel.mutable_cancel()->set_request_id(mine);
    ASSERT_TRUE(client_->send(cancel));
  }
  EXPECT_EQ(leader_->next_cancel(), id);
  leader_->send(id, {40}, rpc::FINISH_ABORT);
  const rpc::Output output = next_output();
  EXPECT_EQ(output.finish(), rpc::FINISH_ABORT);
  EXPECT_EQ(output.usage().completion_tokens(), 1u);
  ASSERT_TRUE(client_->send(generate(5, {10})));  // the id is free again
  EXPECT_NE(leader_->next_submit().request_id(), id);
}

TEST_F(RpcRequestsTest, a_stop_string_ends_the_text_before_it_and_cancels_at_the_leader) {
  begin();
  rpc::Frame frame = generate(5, {10});
  frame.mutable_generate()->add_stop("GH");
  ASSERT_TRUE(client_->send(frame));
  const uint64_t id = leader_->next_submit().request_id();
  leader_->send(id, {40, 41});
  EXPECT_EQ(next_output().text(), "F");  // the G may be the stop string's beginning
  leader_->send(id, {42});
  EXPECT_EQ(leader_->next_cancel(), id);
  leader_->send(id, {43}, rpc::FINISH_ABORT);  // made before the leader heard of it
  rpc::Output last = next_output();
  std::string rest = last.text();
  while (last.finish() == rpc::FINISH_NONE) rest += (last = next_output()).text();
  EXPECT_EQ(rest, "");
  EXPECT_EQ(last.finish(), rpc::FINISH_STOP);
  EXPECT_EQ(last.usage().completion_tokens(), 3u);
}

TEST_F(RpcRequestsTest, a_full_queue_says_when_to_try_again) {
  CoordinatorOptions options;
  options.max_queued = 1;
  begin(options, 1);
  for (uint64_t id = 1; id <= 4; ++id) ASSERT_TRUE(client_->send(generate(id, {10})));
  const rpc::Error error = client_->next_error();
  EXPECT_EQ(error.request_id(), 4u);
  EXPECT_EQ(error.code(), rpc::ERROR_QUEUE_FULL);
  EXPECT_GT(error.retry_after_ms(), 0u);
}

TEST_F(RpcRequestsTest, a_lost_replica_ends_its_requests_by_name) {
  begin();
  ASSERT_TRUE(client_->send(generate(5, {10})));
  leader_->next_submit();
  leader_->die();
  const rpc::Error error = client_->next_error();
  EXPECT_EQ(error.request_id(), 5u);
  EXPECT_EQ(error.code(), rpc::ERROR_REPLICA_LOST);
  ASSERT_TRUE(client_->send(generate(6, {10})));
  EXPECT_EQ(client_->next_error().code(), rpc::ERROR_UNAVAILABLE);
}

TEST_F(RpcRequestsTest, draining_reaches_the_leader_and_new_requests_wait_for_others) {
  begin();
  const auto other = join();
  rpc::Frame frame;
  frame.mutable_drain()->set_request_id(3);
  frame.mutable_drain()->set_replica_id("r9");
  ASSERT_TRUE(client_->send(frame));
  EXPECT_EQ(client_->next_error().code(), rpc::ERROR_NOT_FOUND);
  frame.mutable_drain()->set_replica_id(leader_->id());
  ASSERT_TRUE(client_->send(frame));
  const auto acknowledged = client_->next();
  ASSERT_TRUE(acknowledged && acknowledged->has_ack());
  EXPECT_EQ(acknowledged->ack().request_id(), 3u);
  const auto drain = leader_->next();
  EXPECT_TRUE(drain && drain->has_drain());
  for (uint64_t id = 1; id <= 3; ++id) {
    ASSERT_TRUE(client_->send(generate(id, {10})));
    other->next_submit();
  }
  EXPECT_TRUE(leader_->nothing_came());
}

}  // namespace
}  // namespace accrete::coordinator
