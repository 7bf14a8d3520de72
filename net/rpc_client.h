// RpcClient: a client program's side of the binary protocol (docs/protocol.md): one connection, many requests. Lives on its executor's one thread;
// all calls belong to that thread. Errors of one request come as its own rpc::Error; a broken connection ends all with ERROR_UNAVAILABLE.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/any_io_executor.hpp>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <unordered_map>

#include "net/frame_connection.h"

namespace accrete::net {

class RpcClient : public std::enable_shared_from_this<RpcClient> {
 public:
  struct Target {
    std::string host = "127.0.0.1";
    uint16_t port = 8001;
    std::string api_key;
  };
  // Connects and says Hello; throws std::runtime_error naming host:port and what the coordinator said.
  static boost::asio::awaitable<std::shared_ptr<RpcClient>> connect(boost::asio::any_io_executor io, Target target);

  // Frames that answer request `id`: Output (several with stream), Error, ClusterState, Health, Ack. The last one forgets the request.
  using OnFrame = std::function<void(const rpc::Frame&)>;
  uint64_t next_id() { return ++last_id_; }
  void call(rpc::Frame frame, uint64_t id, OnFrame on_frame);
  void cancel(uint64_t id);

  // Sends Generate with an id of its own and calls on_output until the last; the error, if it ended in one.
  boost::asio::awaitable<std::optional<rpc::Error>> generate(rpc::Generate request, std::function<void(const rpc::Output&)> on_output);
  // One question, one answer.
  boost::asio::awaitable<rpc::Frame> ask(rpc::Frame frame, uint64_t id);
  void close();
  bool open() const { return connection_->is_open(); }

 private:
  explicit RpcClient(boost::asio::any_io_executor io) : io_(io) {}
  void take(rpc::Frame&& frame);
  void lost(const std::string& why);

  boost::asio::any_io_executor io_;
  std::shared_ptr<FrameConnection> connection_;
  std::unordered_map<uint64_t, OnFrame> waiting_;
  OnFrame on_hello_;
  uint64_t last_id_ = 0;
};

// The request an answer belongs to, and whether it is the last one.
uint64_t request_of(const rpc::Frame& answer);
bool is_last(const rpc::Frame& answer);

}  // namespace accrete::net
