// Leader: the step loop of a replica, on rank 0. Owns the request table, the scheduler and the ledger; plans each step, sends the plan to
// every rank, sets its own share going, collects the reports and hands outputs to the sink. Several steps are in flight: one a pipeline
// stage, or with lookahead the next one of the same sequences. run() is the step thread; submit, cancel, drain and stop are thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <unordered_map>
#include <variant>
#include <vector>

#include "worker/engine/rank_executor.h"
#include "worker/engine/scheduler.h"

namespace accrete::worker {

inline constexpr int kPlanTag = 102;
inline constexpr int kReportTag = 103;

// What the leader counts, for reports and metrics.
struct LeaderCounters {
  uint64_t prompt_tokens = 0;
  uint64_t generation_tokens = 0;
  uint64_t preemptions = 0;
  uint64_t iterations = 0;
  uint64_t swapped_out = 0;
  uint64_t swapped_in = 0;
  double device_seconds = 0.0;
  uint64_t exhausted = 0;  // steps in which a pool ran dry and which were done again: the ledger's bound should make it none
  std::vector<uint64_t> iteration_tokens;  // counts per bucket of kIterationTokenBuckets
};

inline constexpr uint64_t kIterationTokenBuckets[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

// A look at the replica, at most a second old.
struct LeaderStatus {
  int64_t running = 0;
  int64_t waiting = 0;
  std::vector<int64_t> pages_free;   // per rank
  int64_t cached_tokens = 0;         // over open sequences
  double compression = 1.0;          // tokens per slot over open sequences
  std::vector<double> head_slots;    // [L * Hkv] of the whole model
  int64_t kv_bytes_in_use = 0;
  int64_t kv_bytes_saved = 0;
  LeaderCounters counters;
};

struct LeaderModel {
  int64_t layers = 0;
  int64_t kv_heads = 0;
  int64_t vocab = 0;
  int64_t max_model_len = 0;
  std::vector<int32_t> eos_token_ids;
};

class Leader {
 public:
  struct Setup {
    LeaderModel model;
    EngineOptions options;
    std::vector<RankInfo> ranks;
    OutputSink sink;
  };
  Leader(Setup setup, RankExecutor& executor, parallel::Communicator& replica);

  // Until stop(); throws what its own rank threw, CommError when another is lost. Sends the last plan to all ranks on the way out.
  void run();

  void submit(Request request);
  void cancel(RequestId id);
  void stop();
  LeaderStatus status() const;
  bool idle() const;

 private:
  struct Flight {
    StepPlan plan;
    std::vector<ScheduledItem> items;  // of the plan's items
    std::vector<RequestId> released;   // whose final slot counts come with the report; 0: nobody's
  };
  using Command = std::variant<Request, RequestId>;

  bool take_commands();
  void open(Request&& request);
  void cancel_now(RequestId id);
  bool launch_step();
  void add_items(const Schedule& schedule, Flight& flight);
  PlanItem make_item(const ScheduledItem& scheduled);
  SamplerSetup setup_of(const Sequence& sequence) const;
  void add_moves(Schedule& schedule, Flight& flight);
  void finish_flight();
  std::vector<StepReport> collect(const Flight& flight);
  void account(const Flight& flight, const std::vector<StepReport>& reports);
  void apply(const ScheduledItem& item, ItemResult&& result, bool step_is_void);
  void settle(Sequence& sequence);
  void take_token(Sequence& sequence, TokenOut&& token);
  FinishReason reason_to_finish(const Sequence& sequence, int32_t token) const;
  void finish(Sequence& sequence, FinishReason reason, const std::string& error = "");
  void end_with(Sequence& sequence, FinishReason reason, const std::string& error = "");
  void report_released(const Flight& flight, const std::vector<StepReport>& reports);
  void place_heads(const RankInfo& rank, const std::vector<int32_t>& counts, std::vector<int32_t>& whole) const;
  RequestOutput& output(RequestId id);
  void flush_outputs();
  void update_status(bool force);
  double observed_compression() const;
  std::list<Sequence>::iterator find(RequestId id);

  const Setup setup_;
  RankExecutor& executor_;
  parallel::Communicator& replica_;
  Scheduler scheduler_;
  cache::Ledger ledger_;
  const int steps_in_flight_;
  // Owned by the step thread.
  std::list<Sequence> sequences_;
  std::deque<Flight> flights_;
  std::vector<int32_t> releases_;           // for the next plan
  std::vector<RequestId> released_ids_;     // beside releases_
  std::vector<RequestId> drops_;
  std::unordered_map<RequestId, RequestOutput> finishing_;  // final outputs that wait for their slot counts
  std::vector<RequestOutput> outputs_;
  std::vector<double> head_slots_;
  LeaderCounters counters_;
  uint64_t next_step_ = 1;
  uint64_t next_arrival_ = 0;
  uint64_t closed_tokens_ = 0, closed_slots_ = 0;  // of finished requests, per head: the compression seen so far
  double last_heads_ = 0.0, last_status_ = 0.0;    // steady seconds
  // Shared.
  mutable std::mutex mutex_;
  std::condition_variable wake_;
  std::deque<Command> commands_;
  bool stop_ = false;
  bool idle_ = true;
  LeaderStatus status_;
};

// The step loop of every other rank: plans in, reports out, until the plan that says stop.
void follow(RankExecutor& executor, parallel::Communicator& replica);

}  // namespace accrete::worker
