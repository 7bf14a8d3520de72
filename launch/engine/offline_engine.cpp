#include "launch/engine/offline_engine.h"

#include <thread>

#include "launch/cli/command_line.h"

namespace accrete::launch {

namespace {

const worker::EngineOptions& one_replica(const worker::EngineOptions& options) {
  if (options.topology.data > 1) throw UsageError("--data-parallel-size: this command runs one replica; serve and worker run several");
  return options;
}

}  // namespace

OfflineEngine::OfflineEngine(const worker::EngineOptions& options)
    : replica_(std::make_unique<worker::LocalReplica>(
          one_replica(options), [this](std::vector<worker::RequestOutput>&& outputs) { take(std::move(outputs)); })) {}

OfflineEngine::~OfflineEngine() { replica_.reset(); }

void OfflineEngine::take(std::vector<worker::RequestOutput>&& outputs) {
  const auto now = std::chrono::steady_clock::now();
  {
    const std::lock_guard lock(mutex_);
    for (worker::RequestOutput& output : outputs) outputs_.push_back({std::move(output), now});
  }
  arrived_.notify_one();
}

void OfflineEngine::consume(size_t unfinished, const Handler& handler) {
  while (unfinished > 0) {
    std::deque<TimedOutput> batch;
    {
      std::unique_lock lock(mutex_);
      arrived_.wait(lock, [this] { return failed_ || !outputs_.empty(); });
      if (outputs_.empty()) return;
      batch.swap(outputs_);
    }
    for (TimedOutput& timed : batch) {
      timed.output.id -= first_id_;
      if (timed.output.finish != worker::FinishReason::none) --unfinished;
      handler(timed);
    }
  }
}

void OfflineEngine::run(std::vector<worker::Request> requests, const Handler& handler) {
  const size_t count = requests.size();
  std::exception_ptr handler_error;
  std::thread consumer([&] {
    try {
      consume(count, handler);
    } catch (...) {
      handler_error = std::current_exception();
    }
  });
  std::exception_ptr engine_error;
  try {
    for (size_t i = 0; i < count; ++i) {
      requests[i].id = first_id_ + i;
      replica_->submit(std::move(requests[i]));
    }
    replica_->wait_idle();
  } catch (...) {
    engine_error = std::current_exception();
    const std::lock_guard lock(mutex_);
    failed_ = true;
  }
  arrived_.notify_one();
  consumer.join();
  first_id_ += count;
  if (engine_error) std::rethrow_exception(engine_error);
  if (handler_error) std::rethrow_exception(handler_error);
}

}  // namespace accrete::launch
