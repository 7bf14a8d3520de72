#include "launch/bench/http_client.h"

#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <optional>

namespace accrete::launch {
namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = boost::beast::http;
using asio::ip::tcp;

constexpr auto kConnectTimeout = std::chrono::seconds(10);
constexpr auto kReadTimeout = std::chrono::minutes(10);  // between two pieces: a queued request is silent for long
constexpr size_t kPiece = 16384;

http::request<http::string_body> make_request(const HttpServer& server, const std::string& target, const std::string& body) {
  http::request<http::string_body> request{body.empty() ? http::verb::get : http::verb::post, target, 11};
  request.set(http::field::host, server.host + ":" + std::to_string(server.port));
  request.set(http::field::connection, "close");
  if (!server.api_key.empty()) request.set(http::field::authorization, "Bearer " + server.api_key);
  if (!body.empty()) request.set(http::field::content_type, "application/json");
  request.body() = body;
  request.prepare_payload();
  return request;
}

asio::awaitable<void> connect(beast::tcp_stream& stream, const HttpServer& server) {
  tcp::resolver resolver(co_await asio::this_coro::executor);
  const auto found = co_await resolver.async_resolve(server.host, std::to_string(server.port), asio::use_awaitable);
  stream.expires_after(kConnectTimeout);
  co_await stream.async_connect(found, asio::use_awaitable);
  stream.socket().set_option(tcp::no_delay(true));
}

// Reads the body's next piece; empty at its end.
asio::awaitable<std::string> next_piece(beast::tcp_stream& stream, beast::flat_buffer& buffer,
                                        http::response_parser<http::buffer_body>& parser) {
  std::string piece(kPiece, '\0');
  while (!parser.is_done()) {
    parser.get().body().data = piece.data();
    parser.get().body().size = piece.size();
    stream.expires_after(kReadTimeout);
    boost::system::error_code error;
    co_await http::async_read_some(stream, buffer, parser, asio::redirect_error(asio::use_awaitable, error));
    if (error && error != http::error::need_buffer) throw boost::system::system_error(error);
    const size_t got = piece.size() - parser.get().body().size;
    if (got > 0) {
      piece.resize(got);
      co_return piece;
    }
  }
  co_return std::string();
}

}  // namespace

std::vector<std::string> EventLines::feed(std::string_view bytes) {
  rest_ += bytes;
  std::vector<std::string> events;
  size_t begin = 0;
  for (size_t end; (end = rest_.find('\n', begin)) != std::string::npos; begin = end + 1) {
    std::string_view line = std::string_view(rest_).substr(begin, end - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (!line.starts_with("data:")) continue;
    line.remove_prefix(5);
    if (line.starts_with(' ')) line.remove_prefix(1);
    events.emplace_back(line);
  }
  rest_.erase(0, begin);
  return events;
}

asio::awaitable<HttpAnswer> post_events(const HttpServer& server, const std::string& target, const std::string& body,
                                        const std::function<void(const std::string&)>& on_event) {
  beast::tcp_stream stream(co_await asio::this_coro::executor);
  co_await connect(stream, server);
  const auto request = make_request(server, target, body);
  stream.expires_after(kReadTimeout);
  co_await http::async_write(stream, request, asio::use_awaitable);
  beast::flat_buffer buffer;
  http::response_parser<http::buffer_body> parser;
  parser.body_limit(boost::none);
  co_await http::async_read_header(stream, buffer, parser, asio::use_awaitable);
  HttpAnswer answer{.status = static_cast<int>(parser.get().result_int()), .body = {}};
  EventLines lines;
  while (true) {
    const std::string piece = co_await next_piece(stream, buffer, parser);
    if (piece.empty()) break;
    if (answer.status != 200) {
      answer.body += piece;
      continue;
    }
    for (const std::string& event : lines.feed(piece)) on_event(event);
  }
  co_return answer;
}

HttpAnswer fetch(const HttpServer& server, const std::string& target, const std::string& body) {
  asio::io_context context(1);
  beast::tcp_stream stream(context);
  stream.expires_after(kConnectTimeout);
  tcp::resolver resolver(context);
  stream.connect(resolver.resolve(server.host, std::to_string(server.port)));
  http::write(stream, make_request(server, target, body));
  beast::flat_buffer buffer;
  http::response<http::string_body> response;
  http::read(stream, buffer, response);
  return {.status = static_cast<int>(response.result_int()), .body = std::move(response.body())};
}

}  // namespace accrete::launch
