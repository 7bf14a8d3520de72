// HttpServer: HTTP/1.1 over TCP for one handler: whole answers and server-sent events, keep-alive, limits on bodies, headers, time and
// connections. It knows nothing of what is served. Everything runs on the thread of the io_context it is given.
#pragma once

#include <boost/asio/io_context.hpp>
#include <chrono>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace accrete::net {

struct HttpRequest {
  std::string method;         // "GET"
  std::string path;           // without the query
  std::string authorization;  // the header's value
  std::string body;
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  std::vector<std::pair<std::string, std::string>> headers;
};

// One request and the way to answer it: reply() once, or begin_events(), send_event()..., end_events(). Calls after the client has gone do nothing.
class HttpExchange {
 public:
  virtual ~HttpExchange() = default;
  virtual const HttpRequest& request() const = 0;
  virtual void reply(HttpResponse response) = 0;
  virtual void begin_events() = 0;
  virtual void send_event(std::string_view payload) = 0;  // becomes "data: payload\n\n"
  virtual void end_events() = 0;
  // Called once if the client leaves before the answer is complete. Set it while handling the request; dropped when the answer is complete.
  virtual void on_client_gone(std::function<void()> callback) = 0;
};

struct HttpLimits {
  size_t body_bytes = 8u << 20;    // beyond: 413
  size_t header_bytes = 32u << 10; // beyond: 431
  size_t queued_bytes = 16u << 20; // events a client has not read; beyond, it is dropped
  size_t connections = 4096;       // beyond: 503 and closed
  std::chrono::milliseconds header_time = std::chrono::seconds(10);  // from a request's first byte (the first: from the connection)
  std::chrono::milliseconds body_time = std::chrono::seconds(60);
  std::chrono::milliseconds idle_time = std::chrono::seconds(75);    // between requests
  std::chrono::milliseconds write_time = std::chrono::seconds(60);   // for the client to take anything
};

struct HttpServerOptions {
  std::string host = "0.0.0.0";
  int port = 0;
  HttpLimits limits;
  // Makes the body of an answer that the server gives by itself (400, 413, 431, 503).
  std::function<HttpResponse(int status, const std::string& message)> make_error;
};

class HttpServer {
 public:
  using Handler = std::function<void(std::shared_ptr<HttpExchange>)>;

  // Listens at once; throws std::runtime_error naming a port that is busy.
  HttpServer(boost::asio::io_context& io, HttpServerOptions options, Handler handler);
  ~HttpServer();
  int port() const;
  void start();
  // Accepts no more and closes all connections.
  void close();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

}  // namespace accrete::net
