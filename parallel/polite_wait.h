// PoliteWait: what to do between two looks at something that has not happened yet. Spins first, for the microseconds that a step's
// all-reduces take; then yields; then sleeps an eighth of the time waited so far, at most a millisecond, so that an idle replica costs
// next to nothing and a busy one loses at most an eighth of a wait.
#pragma once

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <chrono>

namespace accrete::parallel {

struct Patience {
  std::chrono::nanoseconds spin{0};
  std::chrono::nanoseconds yield{0};
};

// With a core for every rank; and with fewer, where spinning would keep the awaited rank from running.
inline Patience patience_for(int ranks, int cores) {
  using std::chrono::microseconds;
  if (ranks <= cores) return {microseconds(50), microseconds(500)};
  return {microseconds(0), microseconds(30)};
}

class PoliteWait {
 public:
  explicit PoliteWait(const Patience& patience) : patience_(patience), begin_(std::chrono::steady_clock::now()) {}

  void pause() {
    using std::chrono::nanoseconds;
    const nanoseconds waited = std::chrono::steady_clock::now() - begin_;
    if (waited < patience_.spin) return;
    if (waited < patience_.yield) {
      sched_yield();
      return;
    }
    constexpr nanoseconds kShortest{20'000};
    constexpr nanoseconds kLongest{1'000'000};
    const timespec nap{0, std::clamp(waited / 8, kShortest, kLongest).count()};
    nanosleep(&nap, nullptr);
  }

 private:
  Patience patience_;
  std::chrono::steady_clock::time_point begin_;
};

}  // namespace accrete::parallel
