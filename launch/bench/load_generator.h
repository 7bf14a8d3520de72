// Sends requests at a rate, with at most so many open at once, whatever the backend.
#pragma once

#include <boost/asio/awaitable.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <functional>
#include <vector>

#include "launch/bench/dataset.h"
#include "launch/bench/record.h"

namespace accrete::launch {

// Seconds since the benchmark's start.
class BenchClock {
 public:
  double now() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

// Sends one request and follows its stream to the end. Never throws: what went wrong is in RequestRecord::error.
using SendFn = std::function<boost::asio::awaitable<RequestRecord>(const BenchPrompt&, const BenchClock&)>;

struct LoadPlan {
  double request_rate = 0.0;    // requests a second; infinity: all at once
  double burstiness = 1.0;      // shape of the gamma-distributed gaps; 1: Poisson
  int64_t max_concurrency = 0;  // 0: no limit
  uint64_t seed = 0;
};

// When each of `count` requests is due, in seconds, ascending.
std::vector<double> arrival_times(size_t count, const LoadPlan& plan);

struct LoadResult {
  std::vector<RequestRecord> records;  // in the order of the prompts
  double duration = 0.0;               // seconds from the first request to the last answer
};

// Runs to the end on a thread of its own call; shows progress on stderr.
LoadResult run_load(const std::vector<BenchPrompt>& prompts, const LoadPlan& plan, const SendFn& send);

}  // namespace accrete::launch
