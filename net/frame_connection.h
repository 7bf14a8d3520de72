// FrameConnection: one TCP connection that carries frames both ways, with heartbeats. Owned by shared_ptr; every call and every callback
// happens on the thread that runs the socket's io_context.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "net/frame_codec.h"

namespace accrete::net {

class FrameConnection : public std::enable_shared_from_this<FrameConnection> {
 public:
  using Clock = std::chrono::steady_clock;
  struct Handlers {
    std::function<void(rpc::Frame&&)> on_frame;               // heartbeats are not shown
    std::function<void(const std::string& reason)> on_closed; // once, whoever closed
  };

  explicit FrameConnection(boost::asio::ip::tcp::socket socket, size_t max_frame_bytes = kMaxFrameBytes);

  // Begins to read. The handlers may hold the connection: they are dropped when it closes.
  void start(Handlers handlers);
  // Others from the next frame on; for a peer that has said who it is.
  void set_handlers(Handlers handlers) { handlers_ = std::move(handlers); }
  // Closes unless set_heartbeat or another deadline comes before; for a peer that connects and says nothing.
  void set_deadline(std::chrono::milliseconds patience, std::string reason);
  // From now on sends a Heartbeat every `interval` and closes when nothing came for kMissedHeartbeats of them. Ends the deadline.
  void set_heartbeat(std::chrono::milliseconds interval);
  // Queues a frame. A peer that lets more than kMaxQueuedBytes wait is closed; false then and on a closed connection.
  bool send(const rpc::Frame& frame);
  // Closes at once; what is queued is lost.
  void close(const std::string& reason);
  // Closes when what is queued has been written, after `patience` at the latest.
  void close_after_writes(const std::string& reason, std::chrono::milliseconds patience = std::chrono::seconds(1));

  bool is_open() const { return open_; }
  std::string peer() const { return peer_; }  // host:port
  double seconds_since_last_frame() const;

 private:
  void read_some();
  void on_read(const boost::system::error_code& error, size_t bytes);
  void write_next();
  void beat();

  boost::asio::ip::tcp::socket socket_;
  boost::asio::steady_timer beat_timer_, deadline_;
  FrameDecoder decoder_;
  Handlers handlers_;
  std::vector<char> chunk_;
  std::deque<std::string> writes_;  // front: being written
  size_t queued_bytes_ = 0;
  std::string peer_, closing_reason_;
  Clock::time_point last_frame_ = Clock::now();
  std::chrono::milliseconds interval_{0};
  uint64_t beats_ = 0;
  bool open_ = true;
  bool closing_ = false;  // after the queued writes
};

// host:port of an endpoint, for people.
std::string endpoint_text(const boost::asio::ip::tcp::endpoint& endpoint);

}  // namespace accrete::net
