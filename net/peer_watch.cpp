#include "net/peer_watch.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/ip/v6_only.hpp>
#include <boost/asio/read.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <boost/asio/write.hpp>
#include <cstring>
#include <exception>
#include <stdexcept>
#include <thread>

namespace accrete::net {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;
using std::chrono::milliseconds;
using Clock = std::chrono::steady_clock;
using namespace asio::experimental::awaitable_operators;

namespace {

constexpr char kBeat = 'b', kGoodbye = 'g';
constexpr milliseconds kRetry{200};

// What each side says first, in the byte order of all our hosts (little-endian).
struct Hello {
  uint64_t token = 0;
  int64_t place = 0;
};

struct Link {
  PeerWatch::Peer peer;
  std::shared_ptr<tcp::socket> socket;  // the newest connection; null before the first
  Clock::time_point heard;
  bool met = false;
  bool left = false;
};

// Whether `what` came to its end in time; it is cancelled otherwise.
asio::awaitable<bool> in_time(milliseconds patience, asio::awaitable<void> what) {
  asio::steady_timer timer(co_await asio::this_coro::executor, patience);
  const auto outcome = co_await (std::move(what) || timer.async_wait(asio::use_awaitable));
  co_return outcome.index() == 0;
}

}  // namespace

struct PeerWatch::State {
  explicit State(const Options& given) : options(given) {}

  Options options;
  OnLost on_lost;
  asio::io_context io{1};
  tcp::acceptor acceptor{io};
  std::vector<Link> links;
  std::thread thread;
  bool reported = false;

  void listen();
  asio::awaitable<void> accept_peers();
  asio::awaitable<void> welcome(std::shared_ptr<tcp::socket> socket);
  asio::awaitable<void> keep_connected(int place);
  asio::awaitable<bool> reach(int place, std::shared_ptr<tcp::socket> socket, tcp::endpoint to);
  asio::awaitable<int> greet(std::shared_ptr<tcp::socket> socket);
  asio::awaitable<void> hear(int place, std::shared_ptr<tcp::socket> socket);
  asio::awaitable<void> beat();
  asio::awaitable<void> look();
  void say(char word);
  void look_at_all();
};

void PeerWatch::State::listen() {
  const auto open = [this](const tcp& protocol) {
    acceptor.open(protocol);
    if (protocol == tcp::v6()) acceptor.set_option(asio::ip::v6_only(false));
    acceptor.bind({protocol, 0});
    acceptor.listen();
  };
  try {
    open(tcp::v6());
  } catch (const boost::system::system_error&) {  // a host without IPv6
    error_code ignored;
    acceptor.close(ignored);
    open(tcp::v4());
  }
}

asio::awaitable<void> PeerWatch::State::accept_peers() {
  while (acceptor.is_open()) {
    auto socket = std::make_shared<tcp::socket>(io);
    error_code error;
    co_await acceptor.async_accept(*socket, asio::redirect_error(asio::use_awaitable, error));
    if (!error) {
      asio::co_spawn(io, welcome(socket), asio::detached);
      continue;
    }
    asio::steady_timer pause(io, kRetry);  // out of descriptors, perhaps
    co_await pause.async_wait(asio::redirect_error(asio::use_awaitable, error));
  }
}

// First words, both ways: the peer's place, -1 when it is none of the group.
asio::awaitable<int> PeerWatch::State::greet(std::shared_ptr<tcp::socket> socket) {
  error_code error;
  socket->set_option(tcp::no_delay(true), error);
  const Hello mine{options.token, options.self};
  Hello theirs;
  co_await asio::async_write(*socket, asio::buffer(&mine, sizeof mine), asio::redirect_error(asio::use_awaitable, error));
  if (!error) co_await asio::async_read(*socket, asio::buffer(&theirs, sizeof theirs), asio::redirect_error(asio::use_awaitable, error));
  const bool fits = !error && theirs.token == options.token && theirs.place >= 0 && theirs.place < std::ssize(links);
  co_return fits && theirs.place != options.self ? static_cast<int>(theirs.place) : -1;
}

asio::awaitable<void> PeerWatch::State::welcome(std::shared_ptr<tcp::socket> socket) {
  int place = -1;
  const auto meet = [&]() -> asio::awaitable<void> { place = co_await greet(socket); };
  if (co_await in_time(options.patience, meet()) && place >= 0) co_await hear(place, socket);
}

// Connected and greeted.
asio::awaitable<bool> PeerWatch::State::reach(int place, std::shared_ptr<tcp::socket> socket, tcp::endpoint to) {
  error_code error;
  co_await socket->async_connect(to, asio::redirect_error(asio::use_awaitable, error));
  co_return !error && co_await greet(socket) == place;
}

asio::awaitable<void> PeerWatch::State::keep_connected(int place) {
  while (!links[place].left) {
    for (const std::string& address : links[place].peer.addresses) {
      error_code error;
      const auto to = asio::ip::make_address(address, error);
      if (error) continue;
      auto socket = std::make_shared<tcp::socket>(io);
      bool reached = false;
      const auto attempt = [&]() -> asio::awaitable<void> {
        reached = co_await reach(place, socket, {to, links[place].peer.port});
      };
      if (co_await in_time(options.patience / 8, attempt()) && reached) co_await hear(place, socket);
      if (links[place].left) co_return;
    }
    asio::steady_timer pause(io, kRetry);
    co_await pause.async_wait(asio::use_awaitable);
  }
}

// Until the connection breaks or the peer leaves.
asio::awaitable<void> PeerWatch::State::hear(int place, std::shared_ptr<tcp::socket> socket) {
  Link& link = links[place];
  error_code error;
  socket->non_blocking(true, error);
  link.socket = socket;
  link.met = true;
  link.heard = Clock::now();
  std::array<char, 64> words;
  while (!error && !link.left) {
    const size_t count = co_await socket->async_read_some(asio::buffer(words), asio::redirect_error(asio::use_awaitable, error));
    if (count > 0) link.heard = Clock::now();
    link.left = link.left || std::memchr(words.data(), kGoodbye, count) != nullptr;
  }
  if (link.socket == socket) link.socket.reset();
}

// A word that finds no room is lost: the peer has not read the ones before it.
void PeerWatch::State::say(char word) {
  for (Link& link : links) {
    error_code ignored;
    if (link.socket && !link.left) link.socket->write_some(asio::buffer(&word, 1), ignored);
  }
}

asio::awaitable<void> PeerWatch::State::beat() {
  asio::steady_timer timer(io);
  while (true) {
    say(kBeat);
    timer.expires_after(options.beat);
    co_await timer.async_wait(asio::use_awaitable);
  }
}

void PeerWatch::State::look_at_all() {
  const auto now = Clock::now();
  const auto silence = [&](const Link& link) { return std::chrono::duration_cast<milliseconds>(now - link.heard); };
  for (int place = 0; place < static_cast<int>(links.size()); ++place) {
    if (place == options.self || links[place].left || silence(links[place]) <= options.patience) continue;
    reported = true;
    return on_lost({place, links[place].met, silence(links[place])});
  }
}

// A process that was stopped for a while has the words that came meanwhile still to read, and if its peers were stopped with it (a paused
// virtual machine) they have yet to speak again.
asio::awaitable<void> PeerWatch::State::look() {
  asio::steady_timer timer(io);
  const milliseconds pause = options.beat / 4;
  while (!reported) {
    timer.expires_after(pause);
    co_await timer.async_wait(asio::use_awaitable);
    const auto late = Clock::now() - timer.expiry();
    if (late > options.beat) {
      for (Link& link : links) link.heard = std::max(link.heard, Clock::now() - options.patience + 2 * options.beat);
      continue;
    }
    look_at_all();
  }
}

PeerWatch::PeerWatch(const Options& options) : state_(std::make_unique<State>(options)) {
  try {
    state_->listen();
  } catch (const boost::system::system_error& error) {
    throw std::runtime_error(fmt::format("cannot listen for the other ranks: {}", error.what()));
  }
}

PeerWatch::~PeerWatch() {
  if (!state_->thread.joinable()) return;
  const bool orderly = std::uncaught_exceptions() == 0;
  asio::post(state_->io, [state = state_.get(), orderly] {
    if (orderly) state->say(kGoodbye);
    state->io.stop();
  });
  state_->thread.join();
}

uint16_t PeerWatch::port() const { return state_->acceptor.local_endpoint().port(); }

void PeerWatch::start(std::vector<Peer> peers, OnLost on_lost) {
  State& state = *state_;
  state.on_lost = std::move(on_lost);
  for (Peer& peer : peers) state.links.push_back({std::move(peer), nullptr, Clock::now()});
  asio::co_spawn(state.io, state.accept_peers(), asio::detached);
  // Of two members the later one connects.
  for (int place = 0; place < state.options.self; ++place) asio::co_spawn(state.io, state.keep_connected(place), asio::detached);
  asio::co_spawn(state.io, state.beat(), asio::detached);
  asio::co_spawn(state.io, state.look(), asio::detached);
  state.thread = std::thread([&state] { state.io.run(); });
}

}  // namespace accrete::net
