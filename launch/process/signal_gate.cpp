#include "launch/process/signal_gate.h"

#include <pthread.h>

#include <algorithm>
#include <ctime>

namespace accrete::launch {

SignalGate::SignalGate() {
  sigemptyset(&watched_);
  for (int number : {SIGTERM, SIGINT, SIGCHLD}) sigaddset(&watched_, number);
  pthread_sigmask(SIG_BLOCK, &watched_, &before_);
}

SignalGate::~SignalGate() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

int SignalGate::wait(std::chrono::milliseconds patience) {
  const auto seconds = std::chrono::duration_cast<std::chrono::seconds>(patience);
  const timespec limit{.tv_sec = seconds.count(), .tv_nsec = std::chrono::nanoseconds(patience - seconds).count()};
  return std::max(sigtimedwait(&watched_, nullptr, &limit), 0);
}

}  // namespace accrete::launch
