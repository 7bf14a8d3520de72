// RawClient: a client on 127.0.0.1 that writes bytes, right or wrong, and reads what comes. Blocking; a wait ends after kHang, which only a hang reaches.
#pragma once

#include <sys/socket.h>

#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <cerrno>
#include <charconv>
#include <string>
#include <string_view>
#include <utility>

namespace accrete::net {

inline constexpr int kHang = 30;  // seconds

class RawClient {
 public:
  explicit RawClient(uint16_t port) : socket_(io_) {
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), port});
    const timeval hang{kHang, 0};
    ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_RCVTIMEO, &hang, sizeof(hang));
    ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_SNDTIMEO, &hang, sizeof(hang));
  }

  // False when the other side has closed.
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      const ssize_t sent = ::send(socket_.native_handle(), bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (sent <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(sent));
    }
    return true;
  }

  // Reads what is there, or waits for it; false when the connection ended or hung.
  bool read_some() {
    char chunk[4096];
    const ssize_t count = ::recv(socket_.native_handle(), chunk, sizeof(chunk), 0);
    hung_ = count < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
    if (count > 0) rest_.append(chunk, static_cast<size_t>(count));
    return count > 0;
  }
  // Reads until `done`; false when the connection ended or hung before.
  template <class Done>
  bool read_until(Done done) {
    while (!done()) {
      if (!read_some()) return false;
    }
    return true;
  }

  // The next whole answer with a Content-Length: its status, and its body in `body`; 0 when none came.
  int answer(std::string* body = nullptr, bool without_body = false) {
    if (!read_until([this] { return rest_.find("\r\n\r\n") != std::string::npos; })) return 0;
    head = rest_.substr(0, rest_.find("\r\n\r\n") + 2);
    rest_.erase(0, head.size() + 2);
    const size_t field = head.find("\r\nContent-Length: ");
    size_t length = 0;
    if (field != std::string::npos && !without_body) std::from_chars(head.data() + field + 18, head.data() + head.size(), length);
    if (!read_until([&] { return rest_.size() >= length; })) return 0;
    if (body) *body = rest_.substr(0, length);
    rest_.erase(0, length);
    return std::stoi(head.substr(9, 3));
  }

  // Whether the server ends the connection, by FIN or RST, without another byte before.
  bool ended() {
    const bool more = read_until([this] { return !rest_.empty(); });
    return !more && !hung_;
  }
  bool wait_for(const std::string& text) {
    return read_until([&] { return rest_.find(text) != std::string::npos; });
  }
  const std::string& rest() const { return rest_; }
  std::string take() { return std::exchange(rest_, {}); }
  void hang_up() { socket_.close(); }
  void end_writing() { socket_.shutdown(boost::asio::ip::tcp::socket::shutdown_send); }

  std::string head;  // of the last answer

 private:
  boost::asio::io_context io_;
  boost::asio::ip::tcp::socket socket_;
  std::string rest_;
  bool hung_ = false;
};

}  // namespace accrete::net
