#include "net/http_session.h"

#include <fmt/format.h>

#include <boost/asio/write.hpp>
#include <boost/beast/http/read.hpp>
#include <boost/beast/http/status.hpp>

namespace accrete::net {
namespace {

namespace http = boost::beast::http;
using boost::asio::ip::tcp;

constexpr size_t kReadBytes = 16u << 10;
constexpr size_t kPipelinedBytes = 64u << 10;  // of later requests read ahead while an answer is under way
constexpr size_t kLingerBytes = 64u << 20;
constexpr auto kLingerTime = std::chrono::seconds(5);

std::string head(const HttpResponse& response, bool keep_alive) {
  const std::string_view reason = http::obsolete_reason(http::int_to_status(static_cast<unsigned>(response.status)));
  std::string text = fmt::format("HTTP/1.1 {} {}\r\nServer: accrete\r\nContent-Type: {}\r\nConnection: {}\r\n", response.status, reason,
                                 response.content_type, keep_alive ? "keep-alive" : "close");
  for (const auto& [name, value] : response.headers) text += fmt::format("{}: {}\r\n", name, value);
  return text;
}

std::string whole_answer(const HttpResponse& response, bool keep_alive, bool head_only) {
  std::string text = head(response, keep_alive) + fmt::format("Content-Length: {}\r\n\r\n", response.body.size());
  if (!head_only) text += response.body;
  return text;
}

HttpRequest take_request(http::request<http::string_body>& message) {
  HttpRequest request;
  request.method = std::string(message.method_string());
  const std::string_view target = message.target();
  request.path = std::string(target.substr(0, target.find('?')));
  request.authorization = std::string(message[http::field::authorization]);
  request.body = std::move(message.body());
  return request;
}

}  // namespace

class HttpSession::Exchange : public HttpExchange {
 public:
  Exchange(std::shared_ptr<HttpSession> session, HttpRequest request, bool chunked)
      : session_(std::move(session)), request_(std::move(request)), chunked_(chunked) {}

  const HttpRequest& request() const override { return request_; }
  void reply(HttpResponse response) override {
    const auto session = release();
    if (session) session->write(whole_answer(response, session->keep_alive_, request_.method == "HEAD"), true);
  }
  void begin_events() override {
    if (!session_) return;
    if (!chunked_) session_->keep_alive_ = false;
    HttpResponse response;
    response.content_type = "text/event-stream; charset=utf-8";
    response.headers = {{"Cache-Control", "no-cache"}, {"X-Accel-Buffering", "no"}};
    if (chunked_) response.headers.emplace_back("Transfer-Encoding", "chunked");
    session_->write(head(response, session_->keep_alive_) + "\r\n", false);
  }
  void send_event(std::string_view payload) override {
    if (!session_) return;
    const std::string event = fmt::format("data: {}\n\n", payload);
    session_->write(chunked_ ? fmt::format("{:x}\r\n{}\r\n", event.size(), event) : event, false);
  }
  void end_events() override {
    const auto session = release();
    if (session) session->write(chunked_ ? "0\r\n\r\n" : "", true);
  }
  void on_client_gone(std::function<void()> callback) override {
    if (session_) gone_ = std::move(callback);
  }

  void client_gone() {
    const auto callback = std::move(gone_);
    gone_ = nullptr;
    session_.reset();
    if (callback) callback();
  }

 private:
  std::shared_ptr<HttpSession> release() {
    gone_ = nullptr;
    return std::exchange(session_, nullptr);
  }

  std::shared_ptr<HttpSession> session_;  // null: answered, or the client has gone
  HttpRequest request_;
  bool chunked_;
  std::function<void()> gone_;
};

HttpSession::HttpSession(tcp::socket socket, std::shared_ptr<Shared> shared) : shared_(std::move(shared)), stream_(std::move(socket)) {
  Error ignored;
  stream_.socket().set_option(tcp::no_delay(true), ignored);
}

void HttpSession::start() { await_request(); }

void HttpSession::refuse(int status, const std::string& message) { fail(status, message); }

void HttpSession::await_request() {
  if (buffer_.size() > 0) return read_header();
  const HttpLimits& limits = shared_->options.limits;
  stream_.expires_after(first_ ? limits.header_time : limits.idle_time);
  first_ = false;
  stream_.async_read_some(buffer_.prepare(kReadBytes), [self = shared_from_this()](const Error& error, size_t bytes) {
    if (error) return self->end();
    self->buffer_.commit(bytes);
    self->read_header();
  });
}

void HttpSession::read_header() {
  const HttpLimits& limits = shared_->options.limits;
  parser_.emplace();
  parser_->body_limit(limits.body_bytes);
  parser_->header_limit(static_cast<uint32_t>(limits.header_bytes));
  stream_.expires_after(limits.header_time);
  http::async_read_header(stream_, buffer_, *parser_, [self = shared_from_this()](const Error& error, size_t) { self->on_header(error); });
}

void HttpSession::on_header(const Error& error) {
  if (error) return on_body(error);
  if (parser_->get()[http::field::expect] != "100-continue") return read_body();
  static constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
  boost::asio::async_write(stream_, boost::asio::buffer(kContinue), [self = shared_from_this()](const Error& failure, size_t) {
    if (failure) return self->end();
    self->read_body();
  });
}

void HttpSession::read_body() {
  stream_.expires_after(shared_->options.limits.body_time);
  http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](const Error& error, size_t) { self->on_body(error); });
}

void HttpSession::on_body(const Error& error) {
  if (!error) return handle();
  if (error == http::error::body_limit) {
    return fail(413, fmt::format("the body is over the limit of {} bytes", shared_->options.limits.body_bytes));
  }
  if (error == http::error::header_limit) return fail(431, "the header is too large");
  const bool malformed = error.category() == http::make_error_code(http::error::bad_method).category();
  if (malformed && error != http::error::end_of_stream && error != http::error::partial_message) {
    return fail(400, fmt::format("malformed HTTP request: {}", error.message()));
  }
  end();
}

void HttpSession::handle() {
  stream_.expires_never();
  auto& message = parser_->get();
  keep_alive_ = message.keep_alive();
  const bool chunked = message.version() >= 11;
  exchange_ = std::make_shared<Exchange>(shared_from_this(), take_request(message), chunked);
  last_queued_ = false;
  watch();
  const auto exchange = exchange_;
  shared_->handler(exchange);
}

void HttpSession::watch() {
  watching_ = true;
  stream_.socket().async_read_some(buffer_.prepare(kReadBytes), [self = shared_from_this()](const Error& error, size_t bytes) {
    self->watching_ = false;
    if (self->ended_) return;
    self->buffer_.commit(bytes);
    const bool answered = self->last_queued_ && self->writes_.empty();
    if (answered && (!error || error == boost::asio::error::operation_aborted)) return self->next_request();
    if (error) return self->end();
    if (self->buffer_.size() < kPipelinedBytes) self->watch();
  });
}

void HttpSession::write(std::string bytes, bool last) {
  if (ended_) return;
  queued_bytes_ += bytes.size();
  if (queued_bytes_ > shared_->options.limits.queued_bytes && !last) return end();
  last_queued_ = last_queued_ || last;
  const bool idle = writes_.empty();
  writes_.push_back(std::move(bytes));
  if (idle) write_next();
}

void HttpSession::write_next() {
  stream_.expires_after(shared_->options.limits.write_time);
  boost::asio::async_write(stream_, boost::asio::buffer(writes_.front()), [self = shared_from_this()](const Error& error, size_t) {
    if (self->ended_) return;
    if (error) return self->end();
    self->queued_bytes_ -= self->writes_.front().size();
    self->writes_.pop_front();
    if (!self->writes_.empty()) return self->write_next();
    self->stream_.expires_never();
    if (self->last_queued_) self->answer_complete();
  });
}

void HttpSession::answer_complete() {
  exchange_.reset();
  if (lingering_ || !keep_alive_) {
    Error ignored;
    stream_.socket().shutdown(tcp::socket::shutdown_send, ignored);
    if (!lingering_) return end();
    stream_.expires_after(kLingerTime);
    return linger(0);
  }
  if (!watching_) return next_request();
  stream_.socket().cancel();  // the watch: it goes on with next_request
}

void HttpSession::next_request() {
  last_queued_ = false;
  await_request();
}

// Answers at once and closes. The rest of the request is read away, for closing a socket with unread bytes would take the answer with it.
void HttpSession::fail(int status, const std::string& message) {
  keep_alive_ = false;
  lingering_ = true;
  write(whole_answer(shared_->options.make_error(status, message), false, false), true);
}

void HttpSession::linger(size_t drained) {
  buffer_.clear();
  if (drained > kLingerBytes) return end();
  stream_.async_read_some(buffer_.prepare(kReadBytes), [self = shared_from_this(), drained](const Error& error, size_t bytes) {
    if (error) return self->end();
    self->linger(drained + bytes);
  });
}

void HttpSession::end() {
  if (ended_) return;
  ended_ = true;
  const auto self = shared_from_this();
  stream_.close();
  if (const auto exchange = std::exchange(exchange_, nullptr)) exchange->client_gone();
  shared_->on_end(this);
}

void HttpSession::close() { end(); }

}  // namespace accrete::net
