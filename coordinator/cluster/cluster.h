// Cluster: the replicas, the open requests and where each runs. Owned by the coordinator's I/O thread; no sockets of its own: replicas are reached
// through ReplicaPort.
//
// An open request keeps its prompt, its sampling parameters and every token already handed on: all that moving it to another replica takes.
#pragma once

#include <chrono>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "coordinator/cluster/model_entry.h"
#include "coordinator/cluster/router.h"

namespace accrete::coordinator {

using Clock = std::chrono::steady_clock;

// The way to a replica's leader.
class ReplicaPort {
 public:
  virtual ~ReplicaPort() = default;
  // Never calls back into the Cluster: a port that breaks says so later.
  virtual void send(const rpc::Frame& frame) = 0;
  virtual double seconds_silent() const = 0;
};

struct Refusal {
  rpc::ErrorCode code;
  std::string message;
  std::string param;
};

class Cluster {
 public:
  struct Options {
    size_t max_queued = 1024;   // requests that no replica can take yet
    std::string chat_template;  // --chat-template
  };
  // News of one request; the last one has finish set.
  using Sink = std::function<void(const rpc::TokenChunk&)>;

  explicit Cluster(Options options) : options_(std::move(options)) {}

  // ---- replicas
  // Takes a leader in; its id, or why not.
  struct Joined {
    std::string id;
    std::optional<Refusal> refused;
  };
  Joined join(const rpc::Hello& hello, std::shared_ptr<ReplicaPort> port);
  void leave(const std::string& id, const std::string& why);  // its requests end with an error
  void on_tokens(const std::string& id, const rpc::TokenBatch& batch);
  void on_report(const std::string& id, const rpc::ReplicaReport& report);
  bool set_draining(const std::string& id, bool draining);    // false: unknown

  // ---- requests
  struct Open {
    uint64_t id = 0;                 // 0: refused
    std::optional<Refusal> refused;
  };
  Open open(const std::string& model, rpc::Submit submit, Sink sink);
  void cancel(uint64_t id);          // the sink still gets the end, with the usage
  void forget(uint64_t id);          // the same, but the sink is not called again
  // At the end of the I/O thread: nothing is sent or handed on any more.
  void shut_down() {
    requests_.clear();
    replicas_.clear();
  }
  size_t open_requests() const { return requests_.size(); }

  // ---- state
  // The named model, or the only one when the name is empty.
  std::shared_ptr<const ModelEntry> model(const std::string& name) const;
  std::vector<std::shared_ptr<const ModelEntry>> models() const;
  bool can_serve(const std::string& model = "") const;  // a replica (of that model) is up and not draining
  rpc::ClusterState state() const;
  struct Totals {                    // over all replicas, lost ones too
    uint64_t preemptions = 0, prompt_tokens = 0, generation_tokens = 0;
    std::vector<uint64_t> iteration_token_buckets;
  };
  Totals totals() const;

 private:
  struct Replica {
    std::string id;
    rpc::Hello hello;
    std::shared_ptr<ReplicaPort> port;
    rpc::ReplicaReport report;
    bool draining = false;
    int64_t routed_pages = 0;  // predicted for requests sent since the last report
    std::vector<uint64_t> requests;
    int64_t since_unix_ms = 0;
  };
  struct OpenRequest {
    std::string model;
    rpc::Submit submit;        // `generated` grows with every token handed on
    Sink sink;
    std::string replica;       // empty: queued
  };

  RouterView view(const Replica& replica) const;
  bool route(uint64_t id);     // false: it waits
  void route_queued();         // first come, first served among the requests of one model
  bool waits(const std::string& model) const;
  void end(uint64_t id, const rpc::TokenChunk& last);

  Options options_;
  std::map<std::string, Replica> replicas_;
  std::unordered_map<uint64_t, OpenRequest> requests_;
  std::deque<uint64_t> queue_;
  std::map<std::string, std::shared_ptr<const ModelEntry>> models_;
  Totals gone_;                // counters of replicas that left
  uint64_t next_request_ = 1;
  uint64_t next_replica_ = 0;
};

}  // namespace accrete::coordinator
