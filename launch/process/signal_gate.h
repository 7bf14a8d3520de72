// SignalGate: SIGTERM, SIGINT and SIGCHLD as values instead of interruptions, whichever thread the kernel picks (libraries start threads
// of their own, so blocking the signals in ours would not do). One at a time in a process; wait from one thread.
#pragma once

#include <chrono>
#include <csignal>

namespace accrete::launch {

class SignalGate {
 public:
  SignalGate();  // throws std::runtime_error when the process has no descriptor left
  ~SignalGate();
  SignalGate(const SignalGate&) = delete;
  SignalGate& operator=(const SignalGate&) = delete;

  // The next signal, or 0 when none came within `patience`.
  int wait(std::chrono::milliseconds patience);

 private:
  static constexpr int kWatched[] = {SIGTERM, SIGINT, SIGCHLD};
  struct sigaction before_[3];
  int ends_[2];  // of a pipe: the handler writes the signal's number, wait reads it
};

}  // namespace accrete::launch
