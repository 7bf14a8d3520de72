// HttpStream: the bytes of one HTTP connection of a server, in the clear or under TLS, and those of them that were read ahead. Owned by the
// connection's coroutine; a read and a write may be under way at once. Reads and writes end with an error when tcp()'s timeout passes.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/ssl/ssl_stream.hpp>
#include <chrono>
#include <type_traits>
#include <utility>
#include <variant>

#include "net/tls.h"

namespace accrete::net {

class HttpStream {
  using Plain = boost::beast::tcp_stream;
  using Tls = boost::beast::ssl_stream<boost::beast::tcp_stream>;
  using Done = void(boost::system::error_code, size_t);

 public:
  using executor_type = boost::beast::tcp_stream::executor_type;

  // `tls` may be null: in the clear. Else it outlives the stream, and shake_hands() comes before all else.
  HttpStream(boost::asio::ip::tcp::socket socket, TlsContext* tls);
  HttpStream(const HttpStream&) = delete;
  HttpStream& operator=(const HttpStream&) = delete;

  // False when the client does not speak TLS, shows no certificate that is good enough, or takes longer than `patience`.
  boost::asio::awaitable<bool> shake_hands(std::chrono::milliseconds patience);
  // Ends the connection; one under TLS says so first, for which the client gets `patience`.
  boost::asio::awaitable<void> close(std::chrono::milliseconds patience);
  // Returns when the client has hung up, or never. Cancellable without loss: what it reads is in ahead().
  boost::asio::awaitable<void> until_gone();

  bool secure() const { return layer_.index() == 1; }
  boost::beast::flat_buffer& ahead() { return ahead_; }  // read and not yet used
  boost::beast::tcp_stream& tcp();
  executor_type get_executor() { return tcp().get_executor(); }

  // Beast's and Asio's concepts of a stream.
  template <class Buffers, class Token>
  auto async_read_some(const Buffers& buffers, Token&& token) -> typename boost::asio::async_result<std::decay_t<Token>, Done>::return_type {
    if (auto* tls = std::get_if<Tls>(&layer_)) return tls->async_read_some(buffers, std::forward<Token>(token));
    return std::get<Plain>(layer_).async_read_some(buffers, std::forward<Token>(token));
  }
  template <class Buffers, class Token>
  auto async_write_some(const Buffers& buffers, Token&& token) -> typename boost::asio::async_result<std::decay_t<Token>, Done>::return_type {
    if (auto* tls = std::get_if<Tls>(&layer_)) return tls->async_write_some(buffers, std::forward<Token>(token));
    return std::get<Plain>(layer_).async_write_some(buffers, std::forward<Token>(token));
  }

 private:
  boost::asio::awaitable<void> until_gone_plain();
  boost::asio::awaitable<void> until_gone_secure();

  std::variant<Plain, Tls> layer_;
  boost::beast::flat_buffer ahead_;
};

}  // namespace accrete::net
