// LeaderService: joins a leader to its coordinator: requests in, tokens and reports out, drain and the end. The step thread calls take();
// the link's thread and the service's own thread do the rest.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <unordered_map>

#include "net/leader_link.h"
#include "worker/service/rank.h"

namespace accrete::worker {

class LeaderService {
 public:
  struct Setup {
    WorkerOptions options;
    std::string coordinator;  // HOST:PORT
    rpc::ModelCard card;
    rpc::ReplicaShape shape;
  };
  explicit LeaderService(Setup setup);
  ~LeaderService();

  OutputSink sink() {
    return [this](std::vector<RequestOutput>&& outputs) { take(outputs); };
  }
  // Joins the coordinator and watches until finish(). `leader` must outlive that.
  void start(Leader& leader);
  // After the step loop ended. The exit code: 0 when it was told to stop, 1 when the coordinator is lost (and says so).
  int finish();

 private:
  void take(const std::vector<RequestOutput>& outputs);
  void on_frame(rpc::Frame&& frame);
  void submit(const rpc::Submit& submit);
  void cancel(uint64_t id);
  void cancel_all();
  void watch();
  void send_report();
  void log_stats(double seconds);
  size_t open() const;

  Setup setup_;
  Leader* leader_ = nullptr;
  std::unique_ptr<net::LeaderLink> link_;
  std::thread watcher_;
  std::atomic<bool> stop_watching_{false};
  std::atomic<bool> draining_{false};
  std::atomic<bool> lost_{false};
  mutable std::mutex mutex_;
  // The coordinator's ids are unique over its life, the engine's over ours.
  std::unordered_map<RequestId, uint64_t> theirs_;  // by our id
  std::unordered_map<uint64_t, RequestId> ours_;    // by their id
  RequestId next_id_ = 1;
  LeaderStatus logged_;  // as of the last stats line
};

// SIGTERM and SIGINT: remembered, for watch() to see. Followers end when the leader says so, or by themselves when it never does.
void install_stop_signals(bool leads);

}  // namespace accrete::worker
