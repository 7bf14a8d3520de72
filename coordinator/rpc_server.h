// RpcServer: the frames port: replica leaders and client programs, told apart by their Hello. Owned by the I/O thread.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <chrono>
#include <memory>
#include <string>

#include "coordinator/api/generation.h"
#include "net/frame_connection.h"

namespace accrete::coordinator {

class RpcServer {
 public:
  struct Options {
    std::string host = "0.0.0.0";
    uint16_t port = 0;
    std::string api_key;
    uint32_t heartbeat_ms = 1000;
    std::chrono::milliseconds hello_patience = std::chrono::seconds(10);
  };
  // Binds at once; throws std::runtime_error naming host:port.
  RpcServer(boost::asio::io_context& io, Options options, Cluster& cluster, ServingMetrics& metrics);

  void start();
  void stop();
  uint16_t port() const { return port_; }
  void drain() { draining_ = true; }

 private:
  friend class RpcClientSession;
  boost::asio::awaitable<void> accept();
  void greet(const std::shared_ptr<net::FrameConnection>& connection, rpc::Frame&& frame);
  void greet_leader(const std::shared_ptr<net::FrameConnection>& connection, const rpc::Hello& hello);
  void greet_client(const std::shared_ptr<net::FrameConnection>& connection);
  void welcome(net::FrameConnection& connection, const std::string& replica_id);

  boost::asio::io_context& io_;
  Options options_;
  Cluster& cluster_;
  ServingMetrics& metrics_;
  boost::asio::ip::tcp::acceptor acceptor_;
  uint16_t port_ = 0;
  bool draining_ = false;
};

}  // namespace accrete::coordinator
