#include "launch/process/signal_gate.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <iterator>
#include <stdexcept>

namespace accrete::launch {
namespace {

// Where the handler writes; -1 when there is no gate. Relaxed is enough: the descriptor is published before the handler is installed and
// withdrawn after it is removed.
std::atomic<int> g_write_end{-1};

void hand_over(int number) {
  const int saved = errno;
  const auto byte = static_cast<unsigned char>(number);
  // A full pipe means that enough signals wait already.
  if (write(g_write_end.load(std::memory_order_relaxed), &byte, 1) < 0) errno = saved;
  errno = saved;
}

}  // namespace

SignalGate::SignalGate() {
  if (pipe2(ends_, O_CLOEXEC | O_NONBLOCK) != 0) throw std::runtime_error(fmt::format("pipe: {}", std::strerror(errno)));
  g_write_end.store(ends_[1], std::memory_order_relaxed);
  struct sigaction action = {};
  action.sa_handler = hand_over;
  action.sa_flags = SA_RESTART;
  for (size_t i = 0; i < std::size(kWatched); ++i) sigaction(kWatched[i], &action, &before_[i]);
}

SignalGate::~SignalGate() {
  for (size_t i = 0; i < std::size(kWatched); ++i) sigaction(kWatched[i], &before_[i], nullptr);
  g_write_end.store(-1, std::memory_order_relaxed);
  close(ends_[0]);
  close(ends_[1]);
}

int SignalGate::wait(std::chrono::milliseconds patience) {
  pollfd ready{.fd = ends_[0], .events = POLLIN, .revents = 0};
  int found;
  do {
    found = poll(&ready, 1, static_cast<int>(std::min<int64_t>(patience.count(), 1 << 30)));
  } while (found < 0 && errno == EINTR);  // the signal's byte is there now
  unsigned char number = 0;
  return found > 0 && read(ends_[0], &number, 1) == 1 ? number : 0;
}

}  // namespace accrete::launch
