// HttpServer: HTTP/1.1, in the clear or under TLS, with streamed answers (Beast), without a word about models. One coroutine a connection, all
// on the io_context's thread.
// Limits: header and body must come within read_patience of their first byte (else the connection is closed), bodies are at most kMaxBodyBytes;
// a connection that comes when max_connections are open is told so at its first request and closed. A TLS handshake must end within
// read_patience of the connection's coming, and the connection counts from then on.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/beast/http/message.hpp>
#include <boost/beast/http/string_body.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "net/http_stream.h"
#include "net/tls.h"

namespace accrete::net {

inline constexpr size_t kMaxBodyBytes = size_t{8} << 20;

using HttpRequest = boost::beast::http::request<boost::beast::http::string_body>;

struct HttpResponse {
  unsigned status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

// One request being answered: either respond() once, or begin_stream(), write() any times, end_stream(). All return false when the client is
// gone; then nothing more can be said.
class HttpExchange {
 public:
  HttpExchange(HttpStream& stream, const HttpRequest& request) : stream_(stream), request_(request) {}

  const HttpRequest& request() const { return request_; }
  boost::asio::awaitable<bool> respond(HttpResponse response);
  boost::asio::awaitable<bool> begin_stream(std::string content_type);
  boost::asio::awaitable<bool> write(std::string_view data);  // one chunk
  boost::asio::awaitable<bool> end_stream();
  // Returns when the client has hung up, or never.
  boost::asio::awaitable<void> until_gone() { return stream_.until_gone(); }
  bool answered() const { return answered_; }
  bool keep_alive() const { return keep_alive_; }
  unsigned status() const { return status_; }

 private:
  boost::asio::awaitable<bool> send(std::string_view bytes);

  HttpStream& stream_;
  const HttpRequest& request_;
  bool answered_ = false;
  bool keep_alive_ = true;
  unsigned status_ = 0;
};

class HttpServer {
 public:
  using Handler = std::function<boost::asio::awaitable<void>(HttpExchange&)>;
  // What to answer when the request itself is wrong (400, 413) or there are too many connections (503).
  using ErrorAnswer = std::function<HttpResponse(unsigned status, const std::string& message)>;
  struct Options {
    std::string host = "0.0.0.0";
    uint16_t port = 8000;  // 0: any
    int max_connections = 4096;
    std::chrono::milliseconds read_patience = std::chrono::seconds(10);  // from a request's first byte to its last
    std::chrono::milliseconds idle_patience = std::chrono::seconds(75);  // before the first byte, and between requests of a kept connection
    std::shared_ptr<TlsContext> tls = nullptr;  // null: in the clear
  };

  // Binds at once; throws std::runtime_error naming host:port when that fails.
  HttpServer(boost::asio::io_context& io, Options options, Handler handler, ErrorAnswer error_answer);
  void start();
  void stop();  // accepts no more; open connections go on until they end or the io_context stops
  uint16_t port() const { return port_; }

 private:
  boost::asio::awaitable<void> accept();
  boost::asio::awaitable<void> serve(boost::asio::ip::tcp::socket socket);
  boost::asio::awaitable<bool> serve_one(HttpStream& stream, bool crowded);

  boost::asio::io_context& io_;
  Options options_;
  Handler handler_;
  ErrorAnswer error_answer_;
  boost::asio::ip::tcp::acceptor acceptor_;
  uint16_t port_ = 0;
  int connections_ = 0;
};

// A listening socket on host:port (0: any); throws std::runtime_error naming them. Shared by HTTP and RPC.
boost::asio::ip::tcp::acceptor listen_on(boost::asio::io_context& io, const std::string& host, uint16_t port, const std::string& flag);

}  // namespace accrete::net
