#include "coordinator/rpc_server.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

#include "coordinator/api/http_api.h"
#include "coordinator/rpc_session.h"
#include "net/http_server.h"
#include "net/protocol.h"

namespace accrete::coordinator {

namespace asio = boost::asio;
using Connection = std::shared_ptr<net::FrameConnection>;

namespace {

class LeaderPort : public ReplicaPort {
 public:
  explicit LeaderPort(Connection connection) : connection_(std::move(connection)) {}
  void send(const rpc::Frame& frame) override { connection_->send(frame); }
  double seconds_silent() const override { return connection_->seconds_since_last_frame(); }

 private:
  Connection connection_;
};

void refuse(net::FrameConnection& connection, rpc::ErrorCode code, const std::string& message, const std::string& param = "") {
  spdlog::warn("rpc.refused peer={} why=\"{}\"", connection.peer(), message);
  rpc::Frame frame;
  frame.mutable_error()->set_code(code);
  frame.mutable_error()->set_message(message);
  frame.mutable_error()->set_param(param);
  connection.send(frame);
  connection.close_after_writes(message);
}

}  // namespace

RpcServer::RpcServer(asio::io_context& io, Options options, Cluster& cluster, ServingMetrics& metrics)
    : io_(io),
      options_(std::move(options)),
      cluster_(cluster),
      metrics_(metrics),
      acceptor_(net::listen_on(io, options_.host, options_.port, "--rpc-port")),
      port_(acceptor_.local_endpoint().port()) {}

void RpcServer::start() { asio::co_spawn(io_, accept(), asio::detached); }

void RpcServer::stop() {
  boost::system::error_code ignored;
  acceptor_.close(ignored);
}

asio::awaitable<void> RpcServer::accept() {
  while (acceptor_.is_open()) {
    boost::system::error_code error;
    asio::ip::tcp::socket socket = co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, error));
    if (error) {
      if (!acceptor_.is_open()) co_return;
      asio::steady_timer pause(io_, std::chrono::milliseconds(50));
      co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
      continue;
    }
    const auto connection = std::make_shared<net::FrameConnection>(std::move(socket));
    connection->set_deadline(options_.hello_patience, "no Hello came");
    connection->start({[this, connection](rpc::Frame&& frame) { greet(connection, std::move(frame)); }, {}});
  }
}

void RpcServer::greet(const Connection& connection, rpc::Frame&& frame) {
  connection->set_handlers({});  // a peer has one Hello
  if (!frame.has_hello()) return refuse(*connection, rpc::ERROR_INVALID_ARGUMENT, "the first frame must be Hello");
  const rpc::Hello& hello = frame.hello();
  if (hello.protocol_version() != net::kProtocolVersion) {
    return refuse(*connection, rpc::ERROR_VERSION, fmt::format("protocol version {} is spoken here ({}), you speak {} ({})", net::kProtocolVersion,
                                                               ACCRETE_VERSION, hello.protocol_version(), hello.software_version()), "protocol_version");
  }
  if (!options_.api_key.empty() && !equal_secret(hello.api_key(), options_.api_key)) {
    return refuse(*connection, rpc::ERROR_UNAUTHORIZED, "a valid API key is needed", "api_key");
  }
  if (hello.role() == rpc::ROLE_LEADER) return greet_leader(connection, hello);
  if (hello.role() == rpc::ROLE_CLIENT) return greet_client(connection);
  refuse(*connection, rpc::ERROR_INVALID_ARGUMENT, "role must be client or leader", "role");
}

void RpcServer::welcome(net::FrameConnection& connection, const std::string& replica_id) {
  rpc::Frame frame;
  rpc::Welcome& welcome = *frame.mutable_welcome();
  welcome.set_protocol_version(net::kProtocolVersion);
  welcome.set_software_version(ACCRETE_VERSION);
  welcome.set_heartbeat_ms(options_.heartbeat_ms);
  welcome.set_replica_id(replica_id);
  connection.send(frame);
  connection.set_heartbeat(std::chrono::milliseconds(options_.heartbeat_ms));
}

void RpcServer::greet_leader(const Connection& connection, const rpc::Hello& hello) {
  const Cluster::Joined joined = cluster_.join(hello, std::make_shared<LeaderPort>(connection));
  if (joined.refused) return refuse(*connection, joined.refused->code, joined.refused->message, joined.refused->param);
  const std::string id = joined.id;
  const auto on_frame = [this, id, &peer = *connection](rpc::Frame&& frame) {
    if (frame.has_token_batch()) cluster_.on_tokens(id, frame.token_batch());
    else if (frame.has_replica_report()) cluster_.on_report(id, frame.replica_report());
    else refuse(peer, rpc::ERROR_INVALID_ARGUMENT, "a leader may send TokenBatch and ReplicaReport");
  };
  connection->set_handlers({on_frame,
                            [this, id](const std::string& why) {  // later: it may be the cluster's own send that found the connection broken
                              asio::post(io_, [this, id, why] { cluster_.leave(id, why); });
                            }});
  welcome(*connection, id);
}

void RpcServer::greet_client(const Connection& connection) {
  auto session = std::make_shared<RpcClientSession>(cluster_, metrics_, *connection);
  connection->set_handlers({[this, session](rpc::Frame&& frame) { session->on_frame(frame, draining_); }, {}});
  welcome(*connection, "");
}

}  // namespace accrete::coordinator
