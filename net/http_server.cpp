#include "net/http_server.h"

#include <fmt/format.h>

#include <boost/asio/steady_timer.hpp>
#include <unordered_map>

#include "net/http_session.h"
#include "net/listener.h"

namespace accrete::net {

using boost::asio::ip::tcp;

namespace {
constexpr auto kAcceptPause = std::chrono::milliseconds(100);  // out of file descriptors: try again then
}

struct HttpServer::State : std::enable_shared_from_this<HttpServer::State> {
  State(boost::asio::io_context& io, HttpServerOptions options, Handler handler)
      : acceptor(listen_on(io, options.host, options.port, "HTTP")), timer(io), shared(std::make_shared<HttpSession::Shared>()) {
    shared->options = std::move(options);
    shared->handler = std::move(handler);
  }
  void accept();
  void take(tcp::socket socket);

  tcp::acceptor acceptor;
  boost::asio::steady_timer timer;
  std::shared_ptr<HttpSession::Shared> shared;
  std::unordered_map<HttpSession*, std::weak_ptr<HttpSession>> sessions;
};

void HttpServer::State::accept() {
  acceptor.async_accept([self = shared_from_this()](const boost::system::error_code& error, tcp::socket socket) {
    if (!self->acceptor.is_open()) return;
    if (!error) {
      self->take(std::move(socket));
      return self->accept();
    }
    self->timer.expires_after(kAcceptPause);
    self->timer.async_wait([self](const boost::system::error_code& stopped) {
      if (!stopped && self->acceptor.is_open()) self->accept();
    });
  });
}

void HttpServer::State::take(tcp::socket socket) {
  const bool full = sessions.size() >= shared->options.limits.connections;
  const auto session = std::make_shared<HttpSession>(std::move(socket), shared);
  sessions[session.get()] = session;
  if (full) session->refuse(503, "too many connections");
  else session->start();
}

HttpServer::HttpServer(boost::asio::io_context& io, HttpServerOptions options, Handler handler)
    : state_(std::make_shared<State>(io, std::move(options), std::move(handler))) {}

HttpServer::~HttpServer() { close(); }

int HttpServer::port() const { return state_->acceptor.local_endpoint().port(); }

void HttpServer::start() {
  state_->shared->on_end = [state = std::weak_ptr<State>(state_)](HttpSession* session) {
    if (const auto alive = state.lock()) alive->sessions.erase(session);
  };
  state_->accept();
}

void HttpServer::close() {
  boost::system::error_code ignored;
  state_->acceptor.close(ignored);
  state_->timer.cancel();
  const auto sessions = state_->sessions;
  for (const auto& [key, weak] : sessions) {
    if (const auto session = weak.lock()) session->close();
  }
}

}  // namespace accrete::net
