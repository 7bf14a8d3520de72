#include "net/rpc_client.h"

#include <fmt/format.h>

#include <boost/asio/connect.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <stdexcept>

#include "net/protocol.h"

namespace accrete::net {

namespace asio = boost::asio;

uint64_t request_of(const rpc::Frame& answer) {
  switch (answer.body_case()) {
    case rpc::Frame::kOutput: return answer.output().request_id();
    case rpc::Frame::kError: return answer.error().request_id();
    case rpc::Frame::kClusterState: return answer.cluster_state().request_id();
    case rpc::Frame::kHealth: return answer.health().request_id();
    case rpc::Frame::kAck: return answer.ack().request_id();
    default: return 0;
  }
}

bool is_last(const rpc::Frame& answer) { return !answer.has_output() || answer.output().finish() != rpc::FINISH_NONE; }

asio::awaitable<std::shared_ptr<RpcClient>> RpcClient::connect(asio::any_io_executor io, Target target) {
  boost::system::error_code error;
  asio::ip::tcp::resolver resolver(io);
  const auto found = co_await resolver.async_resolve(target.host, std::to_string(target.port), asio::redirect_error(asio::use_awaitable, error));
  asio::ip::tcp::socket socket(io);
  if (!error) co_await asio::async_connect(socket, found, asio::redirect_error(asio::use_awaitable, error));
  if (error) throw std::runtime_error(fmt::format("{}:{}: {}", target.host, target.port, error.message()));
  const std::shared_ptr<RpcClient> client(new RpcClient(io));
  client->connection_ = std::make_shared<FrameConnection>(std::move(socket));
  client->connection_->start({[client](rpc::Frame&& frame) { client->take(std::move(frame)); }, [client](const std::string& why) { client->lost(why); }});
  rpc::Frame hello;
  hello.mutable_hello()->set_protocol_version(kProtocolVersion);
  hello.mutable_hello()->set_role(rpc::ROLE_CLIENT);
  hello.mutable_hello()->set_software_version(ACCRETE_VERSION);
  hello.mutable_hello()->set_api_key(target.api_key);
  const rpc::Frame answer = co_await client->ask(std::move(hello), 0);
  if (answer.has_error()) throw std::runtime_error(fmt::format("{}:{}: {}", target.host, target.port, answer.error().message()));
  client->connection_->set_heartbeat(std::chrono::milliseconds(std::max<uint32_t>(answer.welcome().heartbeat_ms(), 100)));
  co_return client;
}

void RpcClient::call(rpc::Frame frame, uint64_t id, OnFrame on_frame) {
  waiting_[id] = std::move(on_frame);
  if (!connection_->send(frame)) lost("the connection is closed");
}

void RpcClient::cancel(uint64_t id) {
  rpc::Frame frame;
  frame.mutable_cancel()->set_request_id(id);
  connection_->send(frame);
}

void RpcClient::take(rpc::Frame&& frame) {
  const auto found = waiting_.find(request_of(frame));
  if (found == waiting_.end()) return;
  const OnFrame on_frame = found->second;
  if (is_last(frame)) waiting_.erase(found);
  on_frame(frame);
}

void RpcClient::lost(const std::string& why) {
  for (const auto& [id, on_frame] : std::exchange(waiting_, {})) {
    rpc::Frame frame;
    frame.mutable_error()->set_request_id(id);
    frame.mutable_error()->set_code(rpc::ERROR_UNAVAILABLE);
    frame.mutable_error()->set_message("connection lost: " + why);
    on_frame(frame);
  }
}

asio::awaitable<rpc::Frame> RpcClient::ask(rpc::Frame frame, uint64_t id) {
  asio::steady_timer arrived(io_, asio::steady_timer::time_point::max());
  std::optional<rpc::Frame> answer;
  call(std::move(frame), id, [&](const rpc::Frame& got) {
    answer = got;
    arrived.cancel();
  });
  boost::system::error_code ignored;
  if (!answer) co_await arrived.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  co_return std::move(*answer);
}

asio::awaitable<std::optional<rpc::Error>> RpcClient::generate(rpc::Generate request, std::function<void(const rpc::Output&)> on_output) {
  const uint64_t id = next_id();
  request.set_request_id(id);
  rpc::Frame frame;
  *frame.mutable_generate() = std::move(request);
  asio::steady_timer ended(io_, asio::steady_timer::time_point::max());
  std::optional<rpc::Error> error;
  bool done = false;
  call(std::move(frame), id, [&](const rpc::Frame& got) {
    if (got.has_error()) error = got.error();
    if (got.has_output()) on_output(got.output());
    done = is_last(got);
    if (done) ended.cancel();
  });
  boost::system::error_code ignored;
  if (!done) co_await ended.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  co_return error;
}

void RpcClient::close() { connection_->close("closed by this client"); }

}  // namespace accrete::net
