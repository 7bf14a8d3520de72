// PoliteWait: what to do between two looks at something that has not happened yet. Yields first: where the awaited rank
// has a core of its own that costs half a microsecond a look, where it shares this one it lets it run at once (a spin
// of 50 us there made an all-reduce of two ranks take 104 us instead of 2.4). Then sleeps an eighth of the time waited
// so far, at most a millisecond, so that an idle replica costs next to nothing and a busy one loses at most an eighth
// of a wait.
#pragma once

#include <sched.h>
#include <time.h>

#include <algorithm>
#include <chrono>

namespace accrete::parallel {

// How long a wait yields before it sleeps.
struct Patience {
  std::chrono::nanoseconds yield{0};
};

// With a core for every rank; and with fewer, where a rank that keeps running takes time from the one it waits for.
inline Patience patience_for(int ranks, int cores) {
  using std::chrono::microseconds;
  return {ranks <= cores ? microseconds(500) : microseconds(100)};
}

class PoliteWait {
 public:
  explicit PoliteWait(const Patience& patience) : patience_(patience), begin_(std::chrono::steady_clock::now()) {}

  void pause() {
    using std::chrono::nanoseconds;
    const nanoseconds waited = std::chrono::steady_clock::now() - begin_;
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
