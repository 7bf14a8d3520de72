// HttpSession: one connection of an HttpServer. Reads a request, hands it to the handler, writes the answer, reads the next. While an answer
// is under way it keeps reading, so that a client that leaves is noticed at once.
#pragma once

#include <boost/asio/steady_timer.hpp>
#include <boost/beast/core/flat_buffer.hpp>
#include <boost/beast/core/tcp_stream.hpp>
#include <boost/beast/http/parser.hpp>
#include <boost/beast/http/string_body.hpp>
#include <deque>
#include <memory>
#include <optional>

#include "net/http_server.h"

namespace accrete::net {

class HttpSession : public std::enable_shared_from_this<HttpSession> {
 public:
  struct Shared {  // of all sessions of a server
    HttpServerOptions options;
    HttpServer::Handler handler;
    std::function<void(HttpSession*)> on_end;
  };
  HttpSession(boost::asio::ip::tcp::socket socket, std::shared_ptr<Shared> shared);

  void start();
  void refuse(int status, const std::string& message);  // instead of start()
  void close();

 private:
  class Exchange;
  using Error = boost::system::error_code;

  void await_request();
  void read_header();
  void on_header(const Error& error);
  void read_body();
  void on_body(const Error& error);
  void handle();
  void watch();
  void write(std::string bytes, bool last);
  void write_next();
  void answer_complete();
  void next_request();
  void fail(int status, const std::string& message);
  void linger(size_t drained);
  void end();

  std::shared_ptr<Shared> shared_;
  boost::beast::tcp_stream stream_;
  boost::beast::flat_buffer buffer_;
  std::optional<boost::beast::http::request_parser<boost::beast::http::string_body>> parser_;
  std::shared_ptr<Exchange> exchange_;  // of the request under way
  std::deque<std::string> writes_;      // front: being written
  size_t queued_bytes_ = 0;
  bool first_ = true;
  bool watching_ = false;     // a read for the client's leaving is under way
  bool last_queued_ = false;  // the answer's end is in writes_
  bool keep_alive_ = true;
  bool lingering_ = false;    // the answer came before the request's end: read the rest away
  bool ended_ = false;
};

}  // namespace accrete::net
