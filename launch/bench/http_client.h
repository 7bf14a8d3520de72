// A small HTTP/1.1 client for benchmarks: whole answers, and server-sent events as they arrive.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

namespace accrete::launch {

struct HttpServer {
  std::string host = "127.0.0.1";
  int port = 8000;
  std::string api_key;
};

struct HttpAnswer {
  int status = 0;
  std::string body;
};

// Splits a stream of bytes into the payloads of its "data:" lines, however the bytes were cut.
class EventLines {
 public:
  std::vector<std::string> feed(std::string_view bytes);

 private:
  std::string rest_;
};

// GET when `body` is empty, else POST of JSON. Throws boost::system::system_error when the server cannot be reached.
HttpAnswer fetch(const HttpServer& server, const std::string& target, const std::string& body);

// POSTs and calls `on_event` with each event's payload ("[DONE]" included) until the answer ends. A status other than 200 comes
// back with its body and no events. Throws boost::system::system_error.
boost::asio::awaitable<HttpAnswer> post_events(const HttpServer& server, const std::string& target, const std::string& body,
                                               const std::function<void(const std::string&)>& on_event);

}  // namespace accrete::launch
