#include "net/leader_link.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/connect.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <stdexcept>
#include <thread>

#include "net/frame_connection.h"
#include "net/protocol.h"

namespace accrete::net {

namespace asio = boost::asio;
using boost::system::error_code;
using Clock = std::chrono::steady_clock;

HostPort parse_address(const std::string& address, const std::string& what) {
  const size_t colon = address.rfind(':');
  const bool digits = colon != std::string::npos && colon + 1 < address.size() &&
                      address.find_first_not_of("0123456789", colon + 1) == std::string::npos;
  if (!digits || colon == 0 || address.size() - colon > 6) throw std::invalid_argument(fmt::format("{} {}: must be HOST:PORT", what, address));
  std::string host = address.substr(0, colon);
  if (host.size() > 2 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  return {host, address.substr(colon + 1)};
}

struct LeaderLink::State : std::enable_shared_from_this<State> {
  Options options;
  Callbacks callbacks;
  asio::io_context io{1};
  asio::steady_timer changed{io};  // cancelled when the session closes
  std::shared_ptr<FrameConnection> session;
  std::string broken_why;
  bool refused = false;
  bool stopping = false;
  std::thread thread;

  asio::awaitable<void> run();
  asio::awaitable<bool> connect();
  asio::awaitable<void> wait_closed();
  void take(rpc::Frame&& frame);
};

asio::awaitable<bool> LeaderLink::State::connect() {
  const HostPort to = parse_address(options.address, "--coordinator");
  error_code error;
  asio::ip::tcp::resolver resolver(io);
  const auto found = co_await resolver.async_resolve(to.host, to.port, asio::redirect_error(asio::use_awaitable, error));
  if (!error) {
    asio::ip::tcp::socket socket(io);
    co_await asio::async_connect(socket, found, asio::redirect_error(asio::use_awaitable, error));
    if (!error) {
      session = std::make_shared<FrameConnection>(std::move(socket));
      co_return true;
    }
  }
  broken_why = fmt::format("{}: {}", options.address, error.message());
  co_return false;
}

void LeaderLink::State::take(rpc::Frame&& frame) {
  if (frame.has_welcome()) {
    session->set_heartbeat(std::chrono::milliseconds(frame.welcome().heartbeat_ms() > 0 ? frame.welcome().heartbeat_ms() : kHeartbeatMs));
    if (callbacks.on_connected) callbacks.on_connected(frame.welcome());
    return;
  }
  if (frame.has_error() && frame.error().request_id() == 0) {
    refused = true;
    return session->close(fmt::format("the coordinator refused: {}", frame.error().message()));
  }
  if (callbacks.on_frame) callbacks.on_frame(std::move(frame));
}

asio::awaitable<void> LeaderLink::State::wait_closed() {
  while (session->is_open()) {
    changed.expires_at(Clock::time_point::max());
    error_code ignored;
    co_await changed.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
}

asio::awaitable<void> LeaderLink::State::run() {
  auto deadline = Clock::now() + std::chrono::duration<double>(options.reconnect_seconds);
  while (!stopping && !refused) {
    if (co_await connect()) {
      session->start({[this](rpc::Frame&& frame) { take(std::move(frame)); },
                      [this](const std::string& why) {
                        broken_why = why;
                        changed.cancel();
                      }});
      rpc::Frame hello;
      *hello.mutable_hello() = options.hello;
      session->send(hello);
      co_await wait_closed();
      if (stopping || refused) break;
      if (callbacks.on_broken) callbacks.on_broken(broken_why);
      deadline = Clock::now() + std::chrono::duration<double>(options.reconnect_seconds);
    }
    if (Clock::now() >= deadline) break;
    changed.expires_after(std::chrono::milliseconds(200));
    error_code ignored;
    co_await changed.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
  }
  if (!stopping && callbacks.on_lost) callbacks.on_lost(broken_why);
}

LeaderLink::LeaderLink(Options options, Callbacks callbacks) : state_(std::make_shared<State>()) {
  parse_address(options.address, "--coordinator");
  state_->options = std::move(options);
  state_->callbacks = std::move(callbacks);
}

LeaderLink::~LeaderLink() { stop(); }

void LeaderLink::start() {
  asio::co_spawn(state_->io, state_->run(), asio::detached);
  state_->thread = std::thread([state = state_] { state->io.run(); });
}

void LeaderLink::send(rpc::Frame frame) {
  asio::post(state_->io, [state = state_.get(), frame = std::move(frame)] {
    if (state->session) state->session->send(frame);
  });
}

void LeaderLink::stop() {
  if (!state_->thread.joinable()) return;
  asio::post(state_->io, [state = state_.get()] {
    state->stopping = true;
    if (state->session) state->session->close_after_writes("stopping");
    state->changed.cancel();
  });
  // A peer that does not read must not hold us: after a second the loop ends whatever is queued.
  asio::steady_timer guard(state_->io, std::chrono::seconds(1));
  guard.async_wait([state = state_.get()](error_code error) {
    if (!error) state->io.stop();
  });
  asio::post(state_->io, [state = state_.get(), &guard] {
    if (!state->session || !state->session->is_open()) guard.cancel();
  });
  state_->thread.join();
}

}  // namespace accrete::net
