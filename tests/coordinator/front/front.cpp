#include "tests/coordinator/front/front.h"

#include <fmt/format.h>

#include <chrono>
#include <fstream>
#include <thread>

#include "net/protocol.h"

namespace accrete::coordinator {

rpc::Hello small_hello(const std::string& model, uint32_t rows) {
  std::ifstream in(ACCRETE_SOURCE_DIR "/tests/golden/tokenizer/smollm2.tokenizer.json", std::ios::binary);
  rpc::Hello hello;
  hello.set_protocol_version(net::kProtocolVersion);
  hello.set_role(rpc::ROLE_LEADER);
  hello.set_software_version("a test");
  hello.set_name("script");
  rpc::ModelCard& card = *hello.mutable_model();
  card.set_name(model);
  card.set_hash("the hash of " + model);
  card.set_vocab_size(700);
  card.set_max_model_len(64);
  card.mutable_tokenizer()->set_tokenizer_json(std::string((std::istreambuf_iterator<char>(in)), {}));
  hello.mutable_shape()->set_max_num_seqs(rows);
  hello.mutable_shape()->set_page_slots(16);
  rpc::RankShape& rank = *hello.mutable_shape()->add_ranks();
  rank.set_pages_total(1000);
  rank.set_layer_end(2);
  rank.set_kv_head_end(2);
  return hello;
}

FakeLeader::FakeLeader(uint16_t rpc_port, rpc::Hello hello) {
  net::LeaderLink::Options options;
  options.address = fmt::format("127.0.0.1:{}", rpc_port);
  options.hello = std::move(hello);
  options.reconnect_seconds = 0.0;
  net::LeaderLink::Callbacks callbacks;
  const auto change = [this](const std::function<void()>& what) {
    const std::lock_guard lock(mutex_);
    what();
    changed_.notify_all();
  };
  callbacks.on_connected = [=, this](const rpc::Welcome& welcome) { change([&] { id_ = welcome.replica_id(); }); };
  callbacks.on_frame = [=, this](rpc::Frame&& frame) { change([&] { frames_.push_back(std::move(frame)); }); };
  callbacks.on_lost = [=, this](const std::string& why) { change([&] { lost_ = why; }); };
  link_ = std::make_unique<net::LeaderLink>(std::move(options), std::move(callbacks));
  link_->start();
}

bool FakeLeader::wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& done) {
  return changed_.wait_for(lock, std::chrono::seconds(net::kHang), done);
}

bool FakeLeader::joined() {
  std::unique_lock lock(mutex_);
  return wait(lock, [&] { return !id_.empty() || !lost_.empty(); }) && !id_.empty();
}

std::string FakeLeader::lost() {
  std::unique_lock lock(mutex_);
  wait(lock, [&] { return !lost_.empty(); });
  return lost_;
}

std::string FakeLeader::id() {
  const std::lock_guard lock(mutex_);
  return id_;
}

std::optional<rpc::Frame> FakeLeader::next() {
  std::unique_lock lock(mutex_);
  if (!wait(lock, [&] { return !frames_.empty() || !lost_.empty(); }) || frames_.empty()) {
    ADD_FAILURE() << "nothing came to the leader; " << lost_;
    return std::nullopt;
  }
  rpc::Frame frame = std::move(frames_.front());
  frames_.pop_front();
  return frame;
}

rpc::Submit FakeLeader::next_submit() {
  const auto frame = next();
  EXPECT_TRUE(frame && frame->has_submit()) << (frame ? frame->ShortDebugString() : "");
  return frame ? frame->submit() : rpc::Submit();
}

uint64_t FakeLeader::next_cancel() {
  const auto frame = next();
  EXPECT_TRUE(frame && frame->has_cancel()) << (frame ? frame->ShortDebugString() : "");
  return frame ? frame->cancel().request_id() : 0;
}

bool FakeLeader::nothing_came() {
  const std::lock_guard lock(mutex_);
  return frames_.empty();
}

void FakeLeader::send(uint64_t request, const std::vector<int32_t>& tokens, rpc::FinishReason finish) {
  rpc::TokenChunk chunk;
  chunk.set_request_id(request);
  for (int32_t id : tokens) chunk.add_tokens()->set_id(id);
  chunk.set_finish(finish);
  send(chunk);
}

void FakeLeader::send(const rpc::TokenChunk& chunk) {
  rpc::Frame frame;
  *frame.mutable_token_batch()->add_chunks() = chunk;
  link_->send(std::move(frame));
}

std::string post_text(const std::string& path, const json& body, const std::string& more_headers) {
  const std::string text = body.dump();
  return fmt::format("POST {} HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n{}Content-Length: {}\r\n\r\n{}", path, more_headers, text.size(), text);
}

Answer read_answer(net::RawClient& client) {
  Answer answer;
  answer.status = client.answer(&answer.body);
  answer.head = client.head;
  return answer;
}

Answer post(uint16_t port, const std::string& path, const json& body) {
  net::RawClient client(port);
  EXPECT_TRUE(client.send(post_text(path, body)));
  return read_answer(client);
}

Answer get(uint16_t port, const std::string& path) {
  net::RawClient client(port);
  EXPECT_TRUE(client.send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n"));
  return read_answer(client);
}

std::vector<json> read_events(net::RawClient& client) {
  EXPECT_TRUE(client.wait_for("\r\n0\r\n\r\n")) << client.rest();
  std::string_view rest = client.rest();
  rest.remove_prefix(std::min(rest.find("\r\n\r\n") + 4, rest.size()));
  std::string text;
  while (!rest.empty()) {
    const size_t size = std::stoul(std::string(rest.substr(0, rest.find("\r\n"))), nullptr, 16);
    text += rest.substr(rest.find("\r\n") + 2, size);
    rest.remove_prefix(rest.find("\r\n") + 2 + size + 2);
  }
  std::vector<json> events;
  for (size_t at = 0; (at = text.find("data: ", at)) != std::string::npos;) {
    const std::string data = text.substr(at + 6, text.find("\n\n", at) - at - 6);
    events.push_back(data == "[DONE]" ? json(data) : json::parse(data));
    at += 6 + data.size();
  }
  return events;
}

void FrontTest::start(CoordinatorOptions options) {
  options.host = options.rpc_host = "127.0.0.1";
  options.port = options.rpc_port = 0;
  options.heartbeat_ms = 60'000;  // no test waits for a heartbeat, none dies of a slow machine
  front_ = std::make_unique<Coordinator>(options);
}

std::unique_ptr<FakeLeader> FrontTest::join(rpc::Hello hello) {
  auto leader = std::make_unique<FakeLeader>(front_->rpc_port(), std::move(hello));
  EXPECT_TRUE(leader->joined()) << leader->lost();
  return leader;
}

std::unique_ptr<net::RawClient> FrontTest::ask(const std::string& path, const json& body) {
  auto client = std::make_unique<net::RawClient>(front_->http_port());
  EXPECT_TRUE(client->send(post_text(path, body)));
  return client;
}

void FrontTest::wait_queued(int count) {
  json queued;
  for (int i = 0; i < net::kHang * 100 && queued != count; ++i) {
    if (i > 0) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    queued = get("/v1/cluster").value()["queued"];
  }
  ASSERT_EQ(queued, count);
}

}  // namespace accrete::coordinator
