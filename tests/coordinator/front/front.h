// A coordinator with its real ports, leaders that are scripts, and clients of both ports.
#pragma once

#include <gtest/gtest.h>

#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "coordinator/coordinator.h"
#include "net/leader_link.h"
#include "net/proto/accrete.pb.h"
#include "tests/net/raw_client.h"

namespace accrete::coordinator {

using nlohmann::json;

// A model of 700 tokens with the small SmolLM2-like vocabulary of tests/golden, on a replica of `rows` rows: 2 * rows requests go to it.
rpc::Hello small_hello(const std::string& model = "m", uint32_t rows = 8);

// A leader's side of net::LeaderLink: keeps what comes until the test asks for it.
class FakeLeader {
 public:
  FakeLeader(uint16_t rpc_port, rpc::Hello hello);

  // True once the coordinator has welcomed it; false when it has refused: `lost` says why.
  bool joined();
  // The next Submit, Cancel, Drain or Resume; the test fails when none comes.
  std::optional<rpc::Frame> next();
  // The next frame, which must be a Submit, or a Cancel; empty or 0 otherwise.
  rpc::Submit next_submit();
  uint64_t next_cancel();
  bool nothing_came();  // so far

  // One chunk for a request: the named tokens, and the end when `finish` says so.
  void send(uint64_t request, const std::vector<int32_t>& tokens, rpc::FinishReason finish = rpc::FINISH_NONE);
  void send(const rpc::TokenChunk& chunk);
  void die() { link_.reset(); }
  std::string lost();
  std::string id();  // "r0", ...

 private:
  bool wait(std::unique_lock<std::mutex>& lock, const std::function<bool()>& done);

  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<rpc::Frame> frames_;
  std::string id_, lost_;
  std::unique_ptr<net::LeaderLink> link_;  // last: calls back into the above
};

struct Answer {
  int status = 0;
  std::string head, body;
  json value() const { return json::parse(body); }
};

std::string post_text(const std::string& path, const json& body, const std::string& more_headers = "");
Answer post(uint16_t port, const std::string& path, const json& body);
Answer get(uint16_t port, const std::string& path);
Answer read_answer(net::RawClient& client);
// Reads a chunked answer of server-sent events to its end: the JSON of each, "[DONE]" as a string.
std::vector<json> read_events(net::RawClient& client);

class FrontTest : public testing::Test {
 protected:
  void start(CoordinatorOptions options = {});
  std::unique_ptr<FakeLeader> join(rpc::Hello hello = small_hello());
  Answer post(const std::string& path, const json& body) { return coordinator::post(front_->http_port(), path, body); }
  Answer get(const std::string& path) { return coordinator::get(front_->http_port(), path); }
  // A client whose POST is on its way.
  std::unique_ptr<net::RawClient> ask(const std::string& path, const json& body);
  json replicas() { return get("/v1/cluster").value()["replicas"]; }
  void wait_queued(int count);  // at the coordinator

  std::unique_ptr<Coordinator> front_;
};

}  // namespace accrete::coordinator
