#include "net/http_stream.h"

#include <sys/socket.h>

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cerrno>

namespace accrete::net {

namespace asio = boost::asio;
using boost::system::error_code;

namespace {

constexpr size_t kReadAhead = size_t{64} << 10;  // of a client that sends its next requests while one is being answered

asio::awaitable<void> forever(asio::any_io_executor executor) {
  asio::steady_timer timer(executor, asio::steady_timer::time_point::max());
  co_await timer.async_wait(asio::use_awaitable);
}

}  // namespace

HttpStream::HttpStream(asio::ip::tcp::socket socket, TlsContext* tls) : layer_(std::in_place_type<Plain>, std::move(socket)) {
  if (tls == nullptr) return;
  Plain plain = std::move(std::get<Plain>(layer_));
  layer_.emplace<Tls>(std::move(plain), *tls);
}

boost::beast::tcp_stream& HttpStream::tcp() {
  auto* tls = std::get_if<Tls>(&layer_);
  return tls ? tls->next_layer() : std::get<Plain>(layer_);
}

asio::awaitable<bool> HttpStream::shake_hands(std::chrono::milliseconds patience) {
  auto* tls = std::get_if<Tls>(&layer_);
  if (tls == nullptr) co_return true;
  error_code error;
  tcp().expires_after(patience);  // of the whole handshake
  co_await tls->async_handshake(asio::ssl::stream_base::server, asio::redirect_error(asio::use_awaitable, error));
  tcp().expires_never();
  co_return !error;
}

asio::awaitable<void> HttpStream::close(std::chrono::milliseconds patience) {
  error_code ignored;
  if (auto* tls = std::get_if<Tls>(&layer_)) {
    tcp().expires_after(patience);
    co_await tls->async_shutdown(asio::redirect_error(asio::use_awaitable, ignored));
  }
  tcp().socket().shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
}

asio::awaitable<void> HttpStream::until_gone() { return secure() ? until_gone_secure() : until_gone_plain(); }

asio::awaitable<void> HttpStream::until_gone_plain() {
  auto& socket = tcp().socket();
  while (true) {
    error_code error;
    co_await socket.async_wait(asio::ip::tcp::socket::wait_read, asio::redirect_error(asio::use_awaitable, error));
    char byte = 0;
    const ssize_t count = error ? 0 : ::recv(socket.native_handle(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    if (count == 0 || (count < 0 && errno != EAGAIN && errno != EWOULDBLOCK)) co_return;
    if (count < 0) continue;
    // The next request is there already; the client lives, and its hanging up cannot be seen any more.
    co_await forever(socket.get_executor());
  }
}

// Peeking shows records, and only reading them tells a good-bye from data.
asio::awaitable<void> HttpStream::until_gone_secure() {
  while (ahead_.size() < kReadAhead) {
    error_code error;
    tcp().expires_never();  // of this read: a write that is under way keeps its own timeout
    const size_t count = co_await async_read_some(ahead_.prepare(4096), asio::redirect_error(asio::use_awaitable, error));
    ahead_.commit(count);
    if (error) co_return;
  }
  co_await forever(get_executor());
}

}  // namespace accrete::net
