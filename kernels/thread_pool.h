// ThreadPool: fork/join over a fixed set of threads, for CPU ops. One per rank; owned by the rank, used by its step thread only.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

namespace accrete {

class ThreadPool {
 public:
  // `threads` >= 1 counts the caller. Workers spin a short while between calls, then sleep.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const;
  // Runs body(part) for part in [0, parts), on all threads, and returns when all are done. Parts are dealt in order; body must not throw.
  void run(int64_t parts, const std::function<void(int64_t part)>& body);
  // Splits [0, count) into at most threads() ranges of at least `grain` items: body(begin, end).
  void run_ranges(int64_t count, int64_t grain, const std::function<void(int64_t begin, int64_t end)>& body);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accrete
