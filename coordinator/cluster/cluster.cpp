#include "coordinator/cluster/cluster.h"

#include <fmt/format.h>
#include <spdlog/spdlog.h>

#include <algorithm>
#include <iterator>
#include <set>
#include <utility>

#include "net/protocol.h"

namespace accrete::coordinator {
namespace {

int64_t unix_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
}

void add_counters(Cluster::Totals& totals, const rpc::Counters& counters) {
  totals.preemptions += counters.preemptions();
  totals.prompt_tokens += counters.prompt_tokens();
  totals.generation_tokens += counters.generation_tokens();
  auto& buckets = totals.iteration_token_buckets;
  if (buckets.size() < static_cast<size_t>(counters.iteration_token_buckets_size())) buckets.resize(counters.iteration_token_buckets_size());
  for (int i = 0; i < counters.iteration_token_buckets_size(); ++i) buckets[i] += counters.iteration_token_buckets(i);
}

// Why a leader cannot join, if it cannot.
std::optional<Refusal> unfit(const rpc::Hello& hello) {
  if (hello.model().name().empty()) return Refusal{rpc::ERROR_INVALID_ARGUMENT, "the replica names no model", "model.name"};
  if (hello.shape().ranks_size() == 0) return Refusal{rpc::ERROR_INVALID_ARGUMENT, "the replica names no ranks", "shape.ranks"};
  return std::nullopt;
}

}  // namespace

Cluster::Joined Cluster::join(const rpc::Hello& hello, std::shared_ptr<ReplicaPort> port) {
  if (auto refusal = unfit(hello)) return {"", std::move(refusal)};
  const rpc::ModelCard& card = hello.model();
  const auto known = models_.find(card.name());
  const bool served = std::any_of(replicas_.begin(), replicas_.end(), [&](const auto& r) { return r.second.hello.model().name() == card.name(); });
  if (known != models_.end() && known->second->card.hash() != card.hash() && served) {
    return {"", Refusal{rpc::ERROR_MODEL_MISMATCH,
                        fmt::format("'{}' is served with hash {:.16}, this replica's has {:.16}", card.name(), known->second->card.hash(), card.hash()), "model.hash"}};
  }
  if (known == models_.end() || known->second->card.hash() != card.hash()) models_[card.name()] = make_model_entry(card, options_.chat_template);
  Replica replica;
  replica.id = fmt::format("r{}", next_replica_++);
  replica.hello = hello;
  replica.hello.mutable_model()->clear_tokenizer();
  replica.port = std::move(port);
  replica.since_unix_ms = unix_ms();
  // Until its first report all its pages count as free.
  for (const rpc::RankShape& rank : hello.shape().ranks()) {
    rpc::RankReport& report = *replica.report.add_ranks();
    report.set_rank(rank.rank());
    report.set_pages_free(rank.pages_total());
  }
  const std::string id = replica.id;
  spdlog::info("replica.joined id={} name={} model={} ranks={}", id, hello.name(), card.name(), hello.shape().ranks_size());
  replicas_[id] = std::move(replica);
  return {id, std::nullopt};
}

void Cluster::leave(const std::string& id, const std::string& why) {
  const auto found = replicas_.find(id);
  if (found == replicas_.end()) return;
  const std::vector<uint64_t> orphans = std::move(found->second.requests);
  add_counters(gone_, found->second.report.counters());
  replicas_.erase(found);
  spdlog::warn("replica.lost id={} requests={} why=\"{}\"", id, orphans.size(), why);
  for (uint64_t request : orphans) {
    rpc::TokenChunk last;
    last.set_request_id(request);
    last.set_finish(rpc::FINISH_ERROR);
    last.set_error(fmt::format("replica {} died while it ran this request", id));
    last.set_error_code(rpc::ERROR_REPLICA_LOST);
    end(request, last);
  }
  // Nobody is left to take what waits for its model.
  std::vector<uint64_t> stranded;
  std::copy_if(queue_.begin(), queue_.end(), std::back_inserter(stranded), [&](uint64_t request) { return !can_serve(requests_.at(request).model); });
  for (uint64_t request : stranded) {
    std::erase(queue_, request);
    rpc::TokenChunk last;
    last.set_request_id(request);
    last.set_finish(rpc::FINISH_ERROR);
    last.set_error("no replica is left that could take this request");
    last.set_error_code(rpc::ERROR_UNAVAILABLE);
    end(request, last);
  }
  route_queued();
}

RouterView Cluster::view(const Replica& replica) const {
  RouterView view;
  view.id = replica.id;
  view.accepts = !replica.draining && !replica.report.draining();
  view.page_slots = replica.hello.shape().page_slots();
  view.compression = replica.report.mean_slots_ratio();
  view.requests = static_cast<int64_t>(replica.requests.size());
  view.max_requests = 2 * static_cast<int64_t>(replica.hello.shape().max_num_seqs());  // as many may wait there as run
  view.pages_free = INT64_MAX;
  for (int i = 0; i < replica.report.ranks_size() && i < replica.hello.shape().ranks_size(); ++i) {
    const rpc::RankShape& shape = replica.hello.shape().ranks(i);
    const auto free = static_cast<int64_t>(replica.report.ranks(i).pages_free());
    if (free >= view.pages_free) continue;
    view.pages_free = free;
    view.heads = int64_t{shape.layer_end() - shape.layer_begin()} * (shape.kv_head_end() - shape.kv_head_begin());
  }
  view.pages_free -= replica.routed_pages;
  return view;
}

bool Cluster::route(uint64_t id) {
  OpenRequest& request = requests_.at(id);
  std::vector<RouterView> views;
  for (const auto& [name, replica] : replicas_) {
    if (replica.hello.model().name() == request.model) views.push_back(view(replica));
  }
  const int64_t tokens = request.submit.prompt_size() + request.submit.generated_size();
  const auto picked = pick_replica(views, tokens);
  if (!picked) return false;
  Replica& replica = replicas_.at(views[*picked].id);
  replica.routed_pages += predicted_pages(views[*picked], tokens);
  replica.requests.push_back(id);
  request.replica = replica.id;
  rpc::Frame frame;
  *frame.mutable_submit() = request.submit;
  replica.port->send(frame);
  return true;
}

void Cluster::route_queued() {
  std::set<std::string> full;  // models whose first request found no place: those behind it keep their turn
  std::deque<uint64_t> waiting;
  for (uint64_t id : std::exchange(queue_, {})) {
    const std::string model = requests_.at(id).model;
    if (!full.contains(model) && route(id)) continue;
    full.insert(model);
    waiting.push_back(id);
  }
  queue_ = std::move(waiting);
}

bool Cluster::waits(const std::string& model) const {
  return std::any_of(queue_.begin(), queue_.end(), [&](uint64_t id) { return requests_.at(id).model == model; });
}

Cluster::Open Cluster::open(const std::string& model, rpc::Submit submit, Sink sink) {
  if (!can_serve(model)) return {0, Refusal{rpc::ERROR_UNAVAILABLE, fmt::format("no replica of '{}' can take requests: none is up, or all are draining", model), ""}};
  const uint64_t id = next_request_++;
  submit.set_request_id(id);
  submit.set_arrival_us(static_cast<uint64_t>(unix_ms()) * 1000);
  requests_[id] = {model, std::move(submit), std::move(sink), ""};
  if (!waits(model) && route(id)) return {id, std::nullopt};
  if (queue_.size() >= options_.max_queued) {
    requests_.erase(id);
    return {0, Refusal{rpc::ERROR_QUEUE_FULL, fmt::format("the queue of {} requests is full; try again later", options_.max_queued), ""}};
  }
  queue_.push_back(id);
  return {id, std::nullopt};
}

void Cluster::end(uint64_t id, const rpc::TokenChunk& last) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  const Sink sink = std::move(found->second.sink);
  requests_.erase(found);
  if (sink) sink(last);
}

void Cluster::cancel(uint64_t id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  if (found->second.replica.empty()) {
    rpc::TokenChunk last;
    last.set_request_id(id);
    last.set_finish(rpc::FINISH_ABORT);
    last.mutable_usage()->set_prompt_tokens(static_cast<uint32_t>(found->second.submit.prompt_size()));
    std::erase(queue_, id);
    return end(id, last);
  }
  const auto replica = replicas_.find(found->second.replica);
  if (replica == replicas_.end()) return;  // it is just leaving and ends its requests
  rpc::Frame frame;
  frame.mutable_cancel()->set_request_id(id);
  replica->second.port->send(frame);
}

void Cluster::forget(uint64_t id) {
  const auto found = requests_.find(id);
  if (found == requests_.end()) return;
  found->second.sink = nullptr;
  cancel(id);
}

void Cluster::on_tokens(const std::string& id, const rpc::TokenBatch& batch) {
  const auto replica = replicas_.find(id);
  if (replica == replicas_.end()) return;
  bool room = false;
  for (const rpc::TokenChunk& chunk : batch.chunks()) {
    const auto found = requests_.find(chunk.request_id());
    if (found == requests_.end() || found->second.replica != id) continue;
    for (const rpc::Token& token : chunk.tokens()) found->second.submit.add_generated(token.id());
    if (chunk.finish() != rpc::FINISH_NONE) {
      std::erase(replica->second.requests, chunk.request_id());
      room = true;
      end(chunk.request_id(), chunk);
    } else if (found->second.sink) {
      const Sink sink = found->second.sink;  // it may end the request
      sink(chunk);
    }
  }
  if (room) route_queued();
}

void Cluster::on_report(const std::string& id, const rpc::ReplicaReport& report) {
  const auto found = replicas_.find(id);
  if (found == replicas_.end()) return;
  found->second.report = report;
  found->second.routed_pages = 0;
  route_queued();
}

bool Cluster::set_draining(const std::string& id, bool draining) {
  const auto found = replicas_.find(id);
  if (found == replicas_.end()) return false;
  found->second.draining = draining;
  rpc::Frame frame;
  if (draining) frame.mutable_drain()->set_replica_id(id);
  else frame.mutable_resume()->set_replica_id(id);
  found->second.port->send(frame);
  spdlog::info("replica.{} id={}", draining ? "drain" : "resume", id);
  if (!draining) route_queued();
  return true;
}

std::shared_ptr<const ModelEntry> Cluster::model(const std::string& name) const {
  if (name.empty()) return models_.size() == 1 ? models_.begin()->second : nullptr;
  const auto found = models_.find(name);
  return found == models_.end() ? nullptr : found->second;
}

std::vector<std::shared_ptr<const ModelEntry>> Cluster::models() const {
  std::vector<std::shared_ptr<const ModelEntry>> list;
  for (const auto& [name, entry] : models_) list.push_back(entry);
  return list;
}

bool Cluster::can_serve(const std::string& model) const {
  return std::any_of(replicas_.begin(), replicas_.end(), [&](const auto& r) {
    return !r.second.draining && !r.second.report.draining() && (model.empty() || r.second.hello.model().name() == model);
  });
}

rpc::ClusterState Cluster::state() const {
  rpc::ClusterState state;
  state.set_version(ACCRETE_VERSION);
  for (const auto& [name, entry] : models_) *state.add_models() = entry->card;
  for (const auto& [id, replica] : replicas_) {
    rpc::ReplicaState& out = *state.add_replicas();
    out.set_id(id);
    out.set_name(replica.hello.name());
    out.set_model(replica.hello.model().name());
    out.set_state(replica.draining || replica.report.draining() ? "draining" : "up");
    *out.mutable_shape() = replica.hello.shape();
    *out.mutable_report() = replica.report;
    out.set_requests(static_cast<uint32_t>(replica.requests.size()));
    out.set_seconds_since_heartbeat(replica.port->seconds_silent());
    out.set_hello_unix_ms(static_cast<uint64_t>(replica.since_unix_ms));
  }
  state.set_queued(static_cast<uint32_t>(queue_.size()));
  return state;
}

Cluster::Totals Cluster::totals() const {
  Totals totals = gone_;
  for (const auto& [id, replica] : replicas_) add_counters(totals, replica.report.counters());
  return totals;
}

}  // namespace accrete::coordinator
