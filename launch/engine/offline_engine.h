// OfflineEngine: a LocalReplica used like a function: requests in, their outputs on a thread of the caller's, then done.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <vector>

#include "worker/service/replica.h"

namespace accrete::launch {

// An output and when the step thread handed it over.
struct TimedOutput {
  worker::RequestOutput output;
  std::chrono::steady_clock::time_point when;
};

class OfflineEngine {
 public:
  using Handler = std::function<void(const TimedOutput&)>;

  // Loads the model; throws as worker::LocalReplica does.
  explicit OfflineEngine(const worker::EngineOptions& options);
  ~OfflineEngine();

  const rpc::ModelCard& model() const { return replica_->model(); }
  worker::ReplicaStatus status() const { return replica_->status(); }

  // Submits all requests (ids are given here: the index in `requests`, on top of those of earlier runs; the outputs carry the
  // index) and calls `handler` on one thread until all have finished. Throws what a rank threw.
  void run(std::vector<worker::Request> requests, const Handler& handler);
  // Ends request `index` of the current run early; for use by its handler.
  void cancel(worker::RequestId index) { replica_->cancel(first_id_ + index); }

 private:
  void take(std::vector<worker::RequestOutput>&& outputs);
  void consume(size_t unfinished, const Handler& handler);

  std::mutex mutex_;
  std::condition_variable arrived_;
  std::deque<TimedOutput> outputs_;  // guarded by mutex_
  bool failed_ = false;              // guarded by mutex_: no more outputs will come
  worker::RequestId first_id_ = 1;   // of the current run; the caller's thread
  std::unique_ptr<worker::LocalReplica> replica_;
};

}  // namespace accrete::launch
