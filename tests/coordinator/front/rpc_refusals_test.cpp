// The frames port and peers that are wrong: each is refused as docs/protocol.md says, and nobody else notices.
#include <chrono>
#include <cmath>
#include <set>
#include <thread>

#include "net/protocol.h"
#include "tests/coordinator/front/peer.h"

namespace accrete::coordinator {
namespace {

std::string with_length(uint32_t length, const std::string& bytes) {
  std::string out;
  for (int shift = 24; shift >= 0; shift -= 8) out += static_cast<char>(length >> shift & 0xff);
  return out + bytes;
}

// Each test has a replica and a client program with a request open before, and afterwards both go on as if nothing had been.
class RpcRefusalsTest : public FrontTest {
 protected:
  void begin(CoordinatorOptions options = {}) {
    const std::string key = options.api_key;
    start(std::move(options));
    rpc::Hello hello = small_hello();
    hello.set_api_key(key);
    leader_ = join(hello);
    bystander_ = welcomed(key);
    ASSERT_TRUE(bystander_->send(generate(7, {10, 11})));
    open_ = leader_->next_submit().request_id();
  }
  std::unique_ptr<Peer> peer() { return std::make_unique<Peer>(front_->rpc_port()); }
  std::unique_ptr<Peer> welcomed(const std::string& key = "") { return coordinator::welcomed(front_->rpc_port(), key); }
  void expect_refused(rpc::Hello hello, rpc::ErrorCode code, const std::string& param, const std::string& says) {
    const auto refused = peer();
    ASSERT_TRUE(refused->send(hello_frame(std::move(hello))));
    const rpc::Error error = refused->next_error();
    EXPECT_EQ(error.code(), code) << error.message();
    EXPECT_EQ(error.request_id(), 0u);
    EXPECT_EQ(error.param(), param);
    EXPECT_NE(error.message().find(says), std::string::npos) << error.message();
    EXPECT_TRUE(refused->ended());
  }
  void expect_bystanders_unharmed() {
    leader_->send(open_, {20});
    leader_->send(open_, {21}, rpc::FINISH_LENGTH);
    std::vector<int32_t> tokens;
    for (auto frame = bystander_->next(); frame; frame = bystander_->next()) {
      ASSERT_TRUE(frame->has_output()) << frame->ShortDebugString();
      EXPECT_EQ(frame->output().request_id(), 7u);
      for (const rpc::Token& token : frame->output().tokens()) tokens.push_back(token.id());
      if (frame->output().finish() != rpc::FINISH_NONE) break;
    }
    EXPECT_EQ(tokens, (std::vector<int32_t>{20, 21}));
    EXPECT_TRUE(leader_->nothing_came());
    EXPECT_TRUE(front_->serving());
  }

  std::unique_ptr<FakeLeader> leader_;
  std::unique_ptr<Peer> bystander_;
  uint64_t open_ = 0;
};

TEST_F(RpcRefusalsTest, another_protocol_version) {
  begin();
  for (const uint32_t version : {0u, net::kProtocolVersion + 1, UINT32_MAX}) {
    for (rpc::Hello hello : {client_hello(), small_hello("another")}) {
      hello.set_protocol_version(version);
      hello.set_software_version("0.0-old");
      expect_refused(hello, rpc::ERROR_VERSION, "protocol_version", "you speak " + std::to_string(version) + " (0.0-old)");
    }
  }
  EXPECT_EQ(replicas().size(), 1u);
  expect_bystanders_unharmed();
}

TEST_F(RpcRefusalsTest, a_wrong_api_key) {
  CoordinatorOptions options;
  options.api_key = "secret";
  begin(options);
  for (const char* key : {"", "Secret", "secre", "secrets", "secretsecret"}) {
    expect_refused(client_hello(key), rpc::ERROR_UNAUTHORIZED, "api_key", "a valid API key");
    rpc::Hello hello = small_hello("another");
    hello.set_api_key(key);
    expect_refused(hello, rpc::ERROR_UNAUTHORIZED, "api_key", "a valid API key");
  }
  // The same key guards HTTP; health stays open.
  for (const char* header : {"", "Authorization: Bearer wrong\r\n", "Authorization: Basic secret\r\n", "Authorization: Bearer secretsecret\r\n"}) {
    net::RawClient client(front_->http_port());
    ASSERT_TRUE(client.send(post_text("/v1/completions", {{"prompt", "a"}}, header)));
    const Answer answer = read_answer(client);
    EXPECT_EQ(answer.status, 401) << header;
    EXPECT_EQ(answer.value()["error"]["type"], "authentication_error");
  }
  EXPECT_EQ(get("/health").status, 200);
  net::RawClient client(front_->http_port());
  ASSERT_TRUE(client.send("GET /v1/cluster HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer secret\r\n\r\n"));
  EXPECT_EQ(read_answer(client).value()["replicas"].size(), 1u);
  expect_bystanders_unharmed();
}

TEST_F(RpcRefusalsTest, another_model_under_the_same_name) {
  begin();
  rpc::Hello hello = small_hello();
  hello.mutable_model()->set_hash("fedcba9876543210fedcba");
  expect_refused(hello, rpc::ERROR_MODEL_MISMATCH, "model.hash", "fedcba9876543210");
  FakeLeader other(front_->rpc_port(), hello);
  EXPECT_FALSE(other.joined());
  EXPECT_NE(other.lost().find("the coordinator refused: 'm' is served with hash"), std::string::npos) << other.lost();
  EXPECT_EQ(replicas().size(), 1u);
  expect_bystanders_unharmed();
  // Once nobody serves the old model the name is free.
  leader_->die();
  for (int i = 0; i < net::kHang * 100 && !replicas().empty(); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  FakeLeader later(front_->rpc_port(), hello);
  EXPECT_TRUE(later.joined()) << later.lost();
}

TEST_F(RpcRefusalsTest, a_hello_that_says_too_little) {
  begin();
  rpc::Hello nobody = client_hello();
  nobody.set_role(rpc::ROLE_UNSPECIFIED);
  expect_refused(nobody, rpc::ERROR_INVALID_ARGUMENT, "role", "client or leader");
  rpc::Hello nameless = small_hello("");
  expect_refused(nameless, rpc::ERROR_INVALID_ARGUMENT, "model.name", "names no model");
  rpc::Hello rankless = small_hello("another");
  rankless.mutable_shape()->clear_ranks();
  expect_refused(rankless, rpc::ERROR_INVALID_ARGUMENT, "shape.ranks", "names no ranks");
  const auto rude = peer();
  ASSERT_TRUE(rude->send(generate(1, {10})));
  const rpc::Error error = rude->next_error();
  EXPECT_EQ(error.code(), rpc::ERROR_INVALID_ARGUMENT);
  EXPECT_NE(error.message().find("Hello"), std::string::npos);
  EXPECT_TRUE(rude->ended());
  expect_bystanders_unharmed();
}

TEST_F(RpcRefusalsTest, a_peer_has_one_hello) {
  begin();
  const auto twice = peer();
  rpc::Hello wrong = small_hello("another");
  wrong.set_protocol_version(0);
  ASSERT_TRUE(twice->send_bytes(net::encode_frame(hello_frame(wrong)) + net::encode_frame(hello_frame(small_hello("another")))));
  EXPECT_EQ(twice->next_error().code(), rpc::ERROR_VERSION);
  EXPECT_TRUE(twice->ended());
  EXPECT_EQ(join()->id(), "r1");  // the second in the coordinator's life: the refused one never was a replica
  expect_bystanders_unharmed();
}

TEST_F(RpcRefusalsTest, a_peer_that_does_not_say_who_it_is) {
  CoordinatorOptions options;
  options.hello_patience = std::chrono::milliseconds(150);
  start(options);
  const std::string bytes = net::encode_frame(hello_frame(client_hello()));
  const auto silent = peer(), half = peer(), beating = peer();
  half->send_bytes(std::string_view(bytes).substr(0, 7));
  rpc::Frame beat;
  beat.mutable_heartbeat()->set_sequence(1);
  bool open = true;
  for (int i = 0; i < net::kHang * 100 && open; ++i) {  // heartbeats are no Hello
    open = beating->send(beat);
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  }
  EXPECT_FALSE(open);
  EXPECT_TRUE(silent->ended());
  EXPECT_TRUE(half->ended());
}

TEST_F(RpcRefusalsTest, bytes_that_are_no_frames_end_their_connection) {
  begin();
  const std::string cases[] = {with_length(5, "\xff\xff\xff\xff\xff"), with_length(3, std::string("\x0a\x7f\x00", 3)), "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
                               with_length(net::kMaxFrameBytes + 1, ""), with_length(UINT32_MAX, "x"), std::string(100000, '\x80')};
  for (const std::string& bytes : cases) {
    const auto before_hello = peer();
    before_hello->send_bytes(bytes);
    EXPECT_TRUE(before_hello->ended());
    const auto client = welcomed();
    client->send_bytes(bytes);
    EXPECT_TRUE(client->ended());
    const auto leader = peer();
    ASSERT_TRUE(leader->send(hello_frame(small_hello("another"))));
    const auto welcome = leader->next();
    ASSERT_TRUE(welcome && welcome->has_welcome());
    leader->send_bytes(bytes);
    EXPECT_TRUE(leader->ended());
  }
  for (int i = 0; i < net::kHang * 100 && replicas().size() > 1; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_EQ(replicas().size(), 1u);
  expect_bystanders_unharmed();
}

TEST_F(RpcRefusalsTest, a_client_that_breaks_or_leaves_has_its_requests_cancelled_and_no_others) {
  begin();
  for (const bool breaks : {true, false}) {
    const auto client = welcomed();
    std::set<uint64_t> mine, cancelled;
    for (const uint64_t id : {7, 8}) {  // 7 is the bystander's too: ids belong to connections
      ASSERT_TRUE(client->send(generate(id, {10})));
      mine.insert(leader_->next_submit().request_id());
    }
    if (breaks) client->send_bytes(with_length(UINT32_MAX, ""));
    else client->hang_up();
    for (int i = 0; i < 2; ++i) cancelled.insert(leader_->next_cancel());
    EXPECT_EQ(cancelled, mine);
  }
  expect_bystanders_unharmed();
}

TEST_F(RpcRefusalsTest, frames_out_of_place_are_answered_and_the_connection_goes_on) {
  begin();
  const auto client = welcomed();
  rpc::Frame batch;
  batch.mutable_token_batch()->add_chunks()->set_request_id(open_);  // a leader's word from a client
  for (const rpc::Frame& frame : {batch, rpc::Frame(), hello_frame(client_hello())}) {
    ASSERT_TRUE(client->send(frame));
    const rpc::Error error = client->next_error();
    EXPECT_EQ(error.code(), rpc::ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(error.request_id(), 0u);
  }
  rpc::Frame health;
  health.mutable_health_query()->set_request_id(1);
  ASSERT_TRUE(client->send(health));
  EXPECT_TRUE(client->next().value().health().serving());
  expect_bystanders_unharmed();
}

TEST_F(RpcRefusalsTest, a_leader_that_speaks_as_a_client_is_told_and_leaves) {
  begin();
  const auto leader = peer();
  ASSERT_TRUE(leader->send(hello_frame(small_hello("another"))));
  ASSERT_TRUE(leader->next().value().has_welcome());
  ASSERT_TRUE(leader->send(generate(1, {10})));
  EXPECT_EQ(leader->next_error().code(), rpc::ERROR_INVALID_ARGUMENT);
  EXPECT_TRUE(leader->ended());
  expect_bystanders_unharmed();
}

TEST_F(RpcRefusalsTest, requests_that_cannot_be_are_refused_one_by_one) {
  begin();
  const auto client = welcomed();
  struct Case {
    std::function<void(rpc::Generate&)> spoil;
    rpc::ErrorCode code;
    const char* param;
  };
  const Case cases[] = {
      {[](rpc::Generate& g) { g.set_request_id(0); }, rpc::ERROR_INVALID_ARGUMENT, "request_id"},
      {[](rpc::Generate& g) { g.set_model("nobody's"); }, rpc::ERROR_UNKNOWN_MODEL, "model"},
      {[](rpc::Generate& g) { g.clear_prompt(); }, rpc::ERROR_INVALID_ARGUMENT, "prompt"},
      {[](rpc::Generate& g) { g.mutable_tokens()->clear_ids(); }, rpc::ERROR_INVALID_ARGUMENT, "prompt"},
      {[](rpc::Generate& g) { g.mutable_tokens()->add_ids(700); }, rpc::ERROR_INVALID_ARGUMENT, "prompt"},
      {[](rpc::Generate& g) { g.mutable_tokens()->add_ids(-1); }, rpc::ERROR_INVALID_ARGUMENT, "prompt"},
      {[](rpc::Generate& g) { g.mutable_tokens()->mutable_ids()->Resize(65, 1); }, rpc::ERROR_INVALID_ARGUMENT, "prompt"},
      {[](rpc::Generate& g) { g.mutable_sampling()->set_max_tokens(64); }, rpc::ERROR_INVALID_ARGUMENT, "max_tokens"},
      {[](rpc::Generate& g) { g.mutable_chat()->add_messages()->set_role("user"); }, rpc::ERROR_INVALID_ARGUMENT, "messages"},  // the model has no template
      {[](rpc::Generate& g) { g.mutable_sampling()->set_temperature(-1.0f); }, rpc::ERROR_INVALID_ARGUMENT, "sampling.temperature"},
      {[](rpc::Generate& g) { g.mutable_sampling()->set_top_p(NAN); }, rpc::ERROR_INVALID_ARGUMENT, "sampling.top_p"},
  };
  for (const Case& one : cases) {
    rpc::Frame frame = generate(3, {10});
    one.spoil(*frame.mutable_generate());
    ASSERT_TRUE(client->send(frame));
    const rpc::Error error = client->next_error();
    EXPECT_EQ(error.code(), one.code) << error.message();
    EXPECT_EQ(error.param(), one.param) << error.message();
    EXPECT_EQ(error.request_id(), frame.generate().request_id());
  }
  ASSERT_TRUE(client->send(generate(3, {10})));
  const uint64_t id = leader_->next_submit().request_id();
  ASSERT_TRUE(client->send(generate(3, {10})));  // still open
  EXPECT_EQ(client->next_error().param(), "request_id");
  leader_->send(id, {20}, rpc::FINISH_STOP);
  expect_bystanders_unharmed();
}

}  // namespace
}  // namespace accrete::coordinator
