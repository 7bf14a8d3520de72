#include <fmt/format.h>

#include <condition_variable>
#include <exception>
#include <future>
#include <mutex>
#include <thread>

#include "worker/engine/settings.h"
#include "worker/service/rank.h"

namespace accrete::worker {

// The thread of rank 0 runs the leader; `ready` is set when it has loaded, or with what went wrong.
struct LocalReplica::State {
  EngineOptions options;
  OutputSink sink;
  std::unique_ptr<TensorSource> source;
  std::vector<std::unique_ptr<parallel::Communicator>> ranks;
  std::vector<std::thread> threads;
  std::promise<void> ready;
  rpc::ModelCard card;
  rpc::ReplicaShape shape;
  std::unique_ptr<Leader> leader;  // made by rank 0's thread before `ready`

  mutable std::mutex mutex;
  std::condition_variable changed;
  int64_t open = 0;             // requests submitted and not finished
  std::exception_ptr failure;   // the first one

  void run_rank(int rank);
  void lead(Rank& self, parallel::Communicator& replica);
  void fail(int rank, parallel::Communicator& replica);
  void take(std::vector<RequestOutput>&& outputs);
};

void LocalReplica::State::take(std::vector<RequestOutput>&& outputs) {
  int64_t finished = 0;
  for (const RequestOutput& output : outputs) finished += output.finish != FinishReason::none ? 1 : 0;
  sink(std::move(outputs));
  {
    const std::lock_guard lock(mutex);
    open -= finished;
  }
  changed.notify_all();
}

void LocalReplica::State::lead(Rank& self, parallel::Communicator& replica) {
  leader = std::make_unique<Leader>(
      leader_setup(options, source->config(), self.infos(), [this](std::vector<RequestOutput>&& outputs) { take(std::move(outputs)); }),
      self.executor(), replica);
  card = model_card(*source, options, usable_model_len(options, self.infos()));
  shape = replica_shape(options, self.infos());
  ready.set_value();
  leader->run();
}

void LocalReplica::State::fail(int rank, parallel::Communicator& replica) {
  bool first = false;
  {
    const std::lock_guard lock(mutex);
    first = !failure;
    if (first) failure = std::current_exception();
  }
  changed.notify_all();
  if (first) replica.abort(1, fmt::format("rank {} failed", rank));
  if (rank != 0 || leader) return;
  ready.set_exception(failure);
}

void LocalReplica::State::run_rank(int rank) {
  parallel::Communicator& replica = *ranks[rank];
  try {
    Rank self(*source, options, replica, {replica.size(), rank});
    if (rank == 0) lead(self, replica);
    else follow(self.executor(), replica);
  } catch (...) {
    fail(rank, replica);
  }
}

LocalReplica::LocalReplica(const EngineOptions& options, OutputSink sink) : state_(std::make_unique<State>()) {
  const std::string wrong = check_options(options);
  if (!wrong.empty()) throw std::invalid_argument(wrong);
  State& s = *state_;
  s.options = resolved(options);
  s.options.topology.data = 1;
  s.sink = std::move(sink);
  s.source = open_model(options.model, {options.load_format, options.adapter, options.seed});
  s.ranks = options.topology.replica_ranks() == 1 ? std::vector<std::unique_ptr<parallel::Communicator>>()
                                                  : parallel::make_threads(options.topology.replica_ranks());
  if (s.ranks.empty()) s.ranks.push_back(parallel::make_single());
  std::future<void> loaded = s.ready.get_future();
  for (size_t rank = 0; rank < s.ranks.size(); ++rank) s.threads.emplace_back([&s, rank] { s.run_rank(static_cast<int>(rank)); });
  try {
    loaded.get();
  } catch (...) {
    for (std::thread& thread : s.threads) thread.join();
    throw;
  }
}

LocalReplica::~LocalReplica() {
  state_->leader->stop();
  for (std::thread& thread : state_->threads) thread.join();
}

const rpc::ModelCard& LocalReplica::model() const { return state_->card; }

void LocalReplica::submit(Request request) {
  {
    const std::lock_guard lock(state_->mutex);
    if (state_->failure) std::rethrow_exception(state_->failure);
    ++state_->open;
  }
  state_->leader->submit(std::move(request));
}

void LocalReplica::cancel(RequestId id) { state_->leader->cancel(id); }

void LocalReplica::wait_idle() {
  std::unique_lock lock(state_->mutex);
  state_->changed.wait(lock, [&] { return state_->open == 0 || state_->failure; });
  if (state_->failure) std::rethrow_exception(state_->failure);
}

ReplicaStatus LocalReplica::status() const { return {state_->shape, replica_report(state_->leader->status())}; }

}  // namespace accrete::worker
