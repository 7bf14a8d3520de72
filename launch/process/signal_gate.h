// SignalGate: SIGTERM, SIGINT and SIGCHLD as values instead of interruptions. Make it in main before any thread, so that all threads
// inherit the blocked signals; wait from the main thread.
#pragma once

#include <chrono>
#include <csignal>

namespace accrete::launch {

class SignalGate {
 public:
  SignalGate();
  ~SignalGate();
  SignalGate(const SignalGate&) = delete;
  SignalGate& operator=(const SignalGate&) = delete;

  // The next signal, or 0 when none came within `patience`.
  int wait(std::chrono::milliseconds patience);

 private:
  sigset_t watched_;
  sigset_t before_;
};

}  // namespace accrete::launch
