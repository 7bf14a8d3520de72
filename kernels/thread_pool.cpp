#include "kernels/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "kernels/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace accrete {
namespace {

constexpr auto kSpin = std::chrono::microseconds(50);  // longer than the serial work between two ops of a step
constexpr int kPausesPerClock = 32;                    // reading the clock costs as much as a pause
constexpr int kPausesPerYield = 1024;                  // an oversubscribed machine must run the thread we wait for

void pause() {
#if defined(__x86_64__)
  _mm_pause();
#else
  std::this_thread::yield();
#endif
}

}  // namespace

// A job is one 64-bit word: its number in the upper half, the parts nobody has claimed yet in the lower. Claiming is a
// compare-and-swap that decrements, so a thread that wakes late and holds an old word can never claim a part of a later job,
// and run() need not wait for threads that claimed nothing.
struct ThreadPool::State {
  alignas(64) std::atomic<uint64_t> job{0};
  // Written before `job` is published and constant while parts are unclaimed; relaxed, since a successful claim proves that
  // the job they were read for is still the current one and the acquire load of `job` ordered them after its publication.
  std::atomic<const std::function<void(int64_t)>*> body{nullptr};
  std::atomic<int64_t> parts{0};
  alignas(64) std::atomic<int64_t> finished{0};
  alignas(64) std::atomic<int> sleepers{0};
  std::atomic<bool> stop{false};
  std::mutex mutex;
  std::condition_variable wake;
  std::vector<std::thread> workers;

  static uint64_t unclaimed(uint64_t word) { return word & 0xffffffffu; }

  // Runs parts of the current job until none is unclaimed; says whether it ran any.
  bool work() {
    bool ran = false;
    uint64_t word = job.load(std::memory_order_acquire);  // acquire: see the fields and the caller's data
    while (unclaimed(word) > 0) {
      const auto* current = body.load(std::memory_order_relaxed);
      const int64_t part = parts.load(std::memory_order_relaxed) - static_cast<int64_t>(unclaimed(word));
      // acquire on both outcomes: a failure hands us the word of what may be a newer job.
      if (!job.compare_exchange_weak(word, word - 1, std::memory_order_acquire)) continue;
      (*current)(part);
      finished.fetch_add(1, std::memory_order_release);  // release: the part's results, acquired by join()
      ran = true;
      word = job.load(std::memory_order_acquire);
    }
    return ran;
  }

  void join(int64_t count) {
    for (int pauses = 1; finished.load(std::memory_order_acquire) != count; ++pauses) {
      pause();
      if (pauses % kPausesPerYield == 0) std::this_thread::yield();
    }
  }

  // True when there is work, false when kSpin has passed without any.
  bool spin() {
    const auto deadline = std::chrono::steady_clock::now() + kSpin;
    while (std::chrono::steady_clock::now() < deadline) {
      for (int i = 0; i < kPausesPerClock; ++i) {
        if (unclaimed(job.load(std::memory_order_relaxed)) > 0) return true;
        pause();
      }
    }
    return false;
  }

  // seq_cst: either the sleeper sees the published job, or run() sees the sleeper.
  void sleep() {
    std::unique_lock lock(mutex);
    sleepers.fetch_add(1, std::memory_order_seq_cst);
    wake.wait(lock, [this] { return unclaimed(job.load(std::memory_order_seq_cst)) > 0 || stop.load(); });
    sleepers.fetch_sub(1, std::memory_order_seq_cst);
  }

  void worker_loop() {
    while (!stop.load(std::memory_order_relaxed)) {  // relaxed: only ends the loop; join() of the thread orders the rest
      if (!work() && !spin()) sleep();
    }
  }
};

ThreadPool::ThreadPool(int threads) : state_(std::make_unique<State>()) {
  CHECK(threads >= 1, threads);
  for (int i = 1; i < threads; ++i) state_->workers.emplace_back([state = state_.get()] { state->worker_loop(); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(state_->mutex);
    state_->stop.store(true);
  }
  state_->wake.notify_all();
  for (std::thread& worker : state_->workers) worker.join();
}

int ThreadPool::threads() const { return static_cast<int>(state_->workers.size()) + 1; }

void ThreadPool::run(int64_t parts, const std::function<void(int64_t)>& body) {
  CHECK(parts >= 0 && parts <= INT32_MAX, parts);
  if (parts <= 1 || state_->workers.empty()) {
    for (int64_t part = 0; part < parts; ++part) body(part);
    return;
  }
  State& state = *state_;
  state.body.store(&body, std::memory_order_relaxed);
  state.parts.store(parts, std::memory_order_relaxed);
  state.finished.store(0, std::memory_order_relaxed);
  const uint64_t number = (state.job.load(std::memory_order_relaxed) >> 32) + 1;
  state.job.store(number << 32 | static_cast<uint64_t>(parts), std::memory_order_seq_cst);
  if (state.sleepers.load(std::memory_order_seq_cst) > 0) {
    { std::lock_guard lock(state.mutex); }  // a sleeper past its check is inside wait() once we hold the lock
    state.wake.notify_all();
  }
  state.work();
  state.join(parts);
}

void ThreadPool::run_ranges(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body) {
  CHECK(count >= 0 && grain >= 1, count, grain);
  if (count == 0) return;
  const int64_t ranges = std::clamp<int64_t>(count / grain, 1, threads());
  if (ranges == 1) return body(0, count);
  run(ranges, [&](int64_t range) { body(count * range / ranges, count * (range + 1) / ranges); });
}

}  // namespace accrete
