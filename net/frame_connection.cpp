#include "net/frame_connection.h"

#include <fmt/format.h>

#include <boost/asio/write.hpp>

namespace accrete::net {
namespace {

constexpr size_t kReadBytes = 64u << 10;

}  // namespace

std::string endpoint_text(const boost::asio::ip::tcp::endpoint& endpoint) {
  return fmt::format("{}:{}", endpoint.address().to_string(), endpoint.port());
}

FrameConnection::FrameConnection(boost::asio::ip::tcp::socket socket, size_t max_frame_bytes)
    : socket_(std::move(socket)), beat_timer_(socket_.get_executor()), deadline_(socket_.get_executor()), decoder_(max_frame_bytes),
      chunk_(kReadBytes) {
  boost::system::error_code ignored;
  socket_.set_option(boost::asio::ip::tcp::no_delay(true), ignored);
  const auto endpoint = socket_.remote_endpoint(ignored);
  peer_ = ignored ? "a peer that left" : endpoint_text(endpoint);
}

void FrameConnection::start(Handlers handlers) {
  handlers_ = std::move(handlers);
  read_some();
}

void FrameConnection::set_deadline(std::chrono::milliseconds patience, std::string reason) {
  deadline_.expires_after(patience);
  deadline_.async_wait([self = shared_from_this(), reason = std::move(reason)](const boost::system::error_code& error) {
    if (!error) self->close(reason);
  });
}

void FrameConnection::set_heartbeat(std::chrono::milliseconds interval) {
  deadline_.cancel();
  interval_ = interval;
  last_frame_ = Clock::now();
  beat();
}

void FrameConnection::beat() {
  if (!open_) return;
  const auto silent = Clock::now() - last_frame_;
  if (silent > interval_ * kMissedHeartbeats) {
    close(fmt::format("nothing came from {} for {} ms", peer_, std::chrono::duration_cast<std::chrono::milliseconds>(silent).count()));
    return;
  }
  rpc::Frame frame;
  frame.mutable_heartbeat()->set_sequence(++beats_);
  if (!send(frame)) return;
  beat_timer_.expires_after(interval_);
  beat_timer_.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
    if (!error) self->beat();
  });
}

bool FrameConnection::send(const rpc::Frame& frame) {
  if (!open_ || closing_) return false;
  std::string bytes = encode_frame(frame);
  if (queued_bytes_ + bytes.size() > kMaxQueuedBytes) {
    close(fmt::format("{} reads too slowly: {} bytes wait for it", peer_, queued_bytes_));
    return false;
  }
  queued_bytes_ += bytes.size();
  writes_.push_back(std::move(bytes));
  if (writes_.size() == 1) write_next();
  return true;
}

void FrameConnection::write_next() {
  const auto done = [self = shared_from_this()](const boost::system::error_code& error, size_t) {
    if (!self->open_) return;
    if (error) return self->close(fmt::format("writing to {}: {}", self->peer_, error.message()));
    self->queued_bytes_ -= self->writes_.front().size();
    self->writes_.pop_front();
    if (!self->writes_.empty()) return self->write_next();
    if (self->closing_) self->close(self->closing_reason_);
  };
  boost::asio::async_write(socket_, boost::asio::buffer(writes_.front()), done);
}

void FrameConnection::read_some() {
  socket_.async_read_some(boost::asio::buffer(chunk_), [self = shared_from_this()](const boost::system::error_code& error, size_t bytes) {
    self->on_read(error, bytes);
  });
}

void FrameConnection::on_read(const boost::system::error_code& error, size_t bytes) {
  if (!open_) return;
  if (error) {
    const std::string what = error == boost::asio::error::eof ? "closed the connection" : error.message();
    return close(fmt::format("{}: {}", peer_, what));
  }
  last_frame_ = Clock::now();
  decoder_.feed({chunk_.data(), bytes});
  rpc::Frame frame;
  FrameDecoder::Step step;
  while (open_ && (step = decoder_.next(frame)) == FrameDecoder::Step::frame) {
    if (frame.has_heartbeat()) continue;
    const auto on_frame = handlers_.on_frame;  // stays alive when the handler closes the connection
    if (on_frame) on_frame(std::move(frame));
    frame.Clear();
  }
  if (!open_) return;
  if (step == FrameDecoder::Step::broken) return close(fmt::format("{} sent {}", peer_, decoder_.error()));
  read_some();
}

void FrameConnection::close_after_writes(const std::string& reason, std::chrono::milliseconds patience) {
  if (!open_) return;
  if (writes_.empty()) return close(reason);
  closing_ = true;
  closing_reason_ = reason;
  set_deadline(patience, reason);
}

void FrameConnection::close(const std::string& reason) {
  if (!open_) return;
  open_ = false;
  beat_timer_.cancel();
  deadline_.cancel();
  boost::system::error_code ignored;
  socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_both, ignored);
  socket_.close(ignored);
  const Handlers handlers = std::move(handlers_);
  handlers_ = {};
  if (handlers.on_closed) handlers.on_closed(reason);
}

double FrameConnection::seconds_since_last_frame() const {
  return std::chrono::duration<double>(Clock::now() - last_frame_).count();
}

}  // namespace accrete::net
