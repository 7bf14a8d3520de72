#include "net/http_server.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <boost/beast/http/error.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/write.hpp>
#include <stdexcept>

namespace accrete::net {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using boost::system::error_code;

namespace {

constexpr auto kWritePatience = std::chrono::seconds(30);  // for a client that reads slowly
constexpr auto kClosePatience = std::chrono::seconds(2);   // for one that has yet to read its last answer

}  // namespace

asio::ip::tcp::acceptor listen_on(asio::io_context& io, const std::string& host, uint16_t port, const std::string& flag) {
  error_code error;
  asio::ip::tcp::resolver resolver(io);
  const auto found = resolver.resolve(host, std::to_string(port), asio::ip::tcp::resolver::passive, error);
  if (error) throw std::runtime_error(fmt::format("{} {}: {}", flag, host, error.message()));
  asio::ip::tcp::acceptor acceptor(io);
  const asio::ip::tcp::endpoint endpoint = *found.begin();
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) throw std::runtime_error(fmt::format("{}: cannot listen on {}:{}: {}", flag, host, port, error.message()));
  return acceptor;
}

asio::awaitable<bool> HttpExchange::send(std::string_view bytes) {
  error_code error;
  stream_.tcp().expires_after(kWritePatience);
  co_await asio::async_write(stream_, asio::buffer(bytes), asio::redirect_error(asio::use_awaitable, error));
  stream_.tcp().expires_never();
  co_return !error;
}

asio::awaitable<bool> HttpExchange::respond(HttpResponse response) {
  answered_ = true;
  status_ = response.status;
  http::response<http::string_body> message(static_cast<http::status>(response.status), request_.version());
  message.set(http::field::server, "accrete");
  message.set(http::field::content_type, response.content_type);
  for (const auto& [name, value] : response.headers) {
    message.set(name, value);
    if (name == "Connection" && value == "close") keep_alive_ = false;
  }
  keep_alive_ = keep_alive_ && request_.keep_alive();
  message.keep_alive(keep_alive_);
  message.body() = std::move(response.body);
  message.prepare_payload();
  if (request_.method() == http::verb::head) message.body().clear();
  error_code error;
  stream_.tcp().expires_after(kWritePatience);
  co_await http::async_write(stream_, message, asio::redirect_error(asio::use_awaitable, error));
  co_return !error;
}

asio::awaitable<bool> HttpExchange::begin_stream(std::string content_type) {
  answered_ = true;
  status_ = 200;
  keep_alive_ = request_.keep_alive() && request_.version() == 11;
  const std::string head = fmt::format(
      "HTTP/1.1 200 OK\r\nServer: accrete\r\nContent-Type: {}\r\nCache-Control: no-cache\r\nConnection: {}\r\nTransfer-Encoding: chunked\r\n\r\n",
      content_type, keep_alive_ ? "keep-alive" : "close");
  co_return co_await send(head);
}

asio::awaitable<bool> HttpExchange::write(std::string_view data) {
  if (data.empty()) co_return true;
  const std::string chunk = fmt::format("{:x}\r\n{}\r\n", data.size(), data);
  co_return co_await send(chunk);
}

asio::awaitable<bool> HttpExchange::end_stream() { co_return co_await send("0\r\n\r\n"); }

HttpServer::HttpServer(asio::io_context& io, Options options, Handler handler, ErrorAnswer error_answer)
    : io_(io),
      options_(std::move(options)),
      handler_(std::move(handler)),
      error_answer_(std::move(error_answer)),
      acceptor_(listen_on(io, options_.host, options_.port, "--port")),
      port_(acceptor_.local_endpoint().port()) {}

void HttpServer::start() { asio::co_spawn(io_, accept(), asio::detached); }

void HttpServer::stop() {
  error_code ignored;
  acceptor_.close(ignored);
}

asio::awaitable<void> HttpServer::accept() {
  while (acceptor_.is_open()) {
    error_code error;
    asio::ip::tcp::socket socket = co_await acceptor_.async_accept(asio::redirect_error(asio::use_awaitable, error));
    if (!error) {
      asio::co_spawn(io_, serve(std::move(socket)), asio::detached);
      continue;
    }
    if (!acceptor_.is_open()) co_return;
    asio::steady_timer pause(io_, std::chrono::milliseconds(50));  // out of file descriptors, say
    co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
  }
}

asio::awaitable<void> HttpServer::serve(asio::ip::tcp::socket socket) {
  const bool crowded = connections_ >= options_.max_connections;  // those that came before are served on
  error_code ignored;
  socket.set_option(asio::ip::tcp::no_delay(true), ignored);
  HttpStream stream(std::move(socket), options_.tls.get());
  connections_ += crowded ? 0 : 1;
  bool greeted = false;
  try {
    greeted = co_await stream.shake_hands(options_.read_patience);
    bool more = greeted;  // not behind && in the condition of a loop: there g++ 12 runs a co_await whatever stands before it
    while (more) more = co_await serve_one(stream, crowded);
  } catch (const std::exception&) {
    // The connection is of no use any more; its request's own errors were answered by the handler.
  }
  if (greeted) co_await stream.close(kClosePatience);
  else stream.tcp().socket().shutdown(asio::ip::tcp::socket::shutdown_both, ignored);
  connections_ -= crowded ? 0 : 1;
}

asio::awaitable<bool> HttpServer::serve_one(HttpStream& stream, bool crowded) {
  http::request_parser<http::string_body> parser;
  parser.body_limit(kMaxBodyBytes);
  error_code error;
  beast::flat_buffer& buffer = stream.ahead();
  if (buffer.size() == 0) {  // between requests a connection may rest; from the first byte on it must hurry
    stream.tcp().expires_after(crowded ? options_.read_patience : options_.idle_patience);
    const size_t count = co_await stream.async_read_some(buffer.prepare(4096), asio::redirect_error(asio::use_awaitable, error));
    if (error) co_return false;
    buffer.commit(count);
  }
  stream.tcp().expires_after(options_.read_patience);
  co_await http::async_read(stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
  stream.tcp().expires_never();
  if (error == http::error::end_of_stream || error == beast::error::timeout) co_return false;  // a timeout has closed the socket
  HttpExchange exchange(stream, parser.get());
  unsigned refused = 0;
  if (error == http::error::body_limit) refused = 413;
  else if (error) refused = 400;
  else if (crowded) refused = 503;
  if (refused != 0) {
    HttpResponse answer = error_answer_(refused, refused == 413   ? fmt::format("the body is over {} bytes", kMaxBodyBytes)
                                                 : refused == 503 ? std::string("too many connections")
                                                                  : error.message());
    answer.headers.emplace_back("Connection", "close");
    co_await exchange.respond(std::move(answer));
    if (refused == 413) {  // let the client read the answer before the unread rest of its body resets the connection
      if (!stream.secure()) stream.tcp().socket().shutdown(asio::ip::tcp::socket::shutdown_send, error);
      stream.tcp().expires_after(kClosePatience);
      for (error = {}; !error;) {
        co_await stream.async_read_some(buffer.prepare(65536), asio::redirect_error(asio::use_awaitable, error));
      }
    }
    co_return false;
  }
  co_await handler_(exchange);
  co_return exchange.answered() && exchange.keep_alive() && acceptor_.is_open();
}

}  // namespace accrete::net
