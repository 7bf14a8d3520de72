#include "coordinator/api/serving_metrics.h"

#include <algorithm>

namespace accrete::coordinator {
namespace {

using net::Labels;
using net::MetricsText;

constexpr double kIterationBounds[] = {1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384};

// Sums and worst over the replicas.
struct Load {
  double running = 0, waiting = 0, bytes_in_use = 0, bytes_saved = 0, usage = 0, tokens = 0, slots = 0;
};

Load load_of(const rpc::ClusterState& state) {
  Load load;
  load.waiting = state.queued();
  for (const rpc::ReplicaState& replica : state.replicas()) {
    const rpc::ReplicaReport& report = replica.report();
    load.running += report.running();
    load.waiting += report.waiting();
    load.bytes_in_use += static_cast<double>(report.kv_bytes_in_use());
    load.bytes_saved += static_cast<double>(report.kv_bytes_saved());
    load.tokens += static_cast<double>(report.cached_tokens());
    load.slots += static_cast<double>(report.cached_tokens()) / std::max(1.0, report.mean_slots_ratio());
    for (int i = 0; i < report.ranks_size() && i < replica.shape().ranks_size(); ++i) {
      const auto total = std::max(1.0, static_cast<double>(replica.shape().ranks(i).pages_total()));
      load.usage = std::max(load.usage, 1.0 - static_cast<double>(report.ranks(i).pages_free()) / total);
    }
  }
  return load;
}

void gauge(MetricsText& out, const std::string& name, const std::string& help, double value) {
  out.family("accrete:" + name, "gauge", help);
  out.sample({}, value);
}

void counter(MetricsText& out, const std::string& name, const std::string& help, double value) {
  out.family("accrete:" + name, "counter", help);
  out.sample({}, value);
}

void replica_metrics(MetricsText& out, const rpc::ClusterState& state) {
  out.family("accrete:replica_up", "gauge", "1 for a replica that takes requests, 0 for one that drains.");
  for (const rpc::ReplicaState& replica : state.replicas()) out.sample({{"replica", replica.id()}}, replica.state() == "up" ? 1 : 0);
  out.family("accrete:pages_free", "gauge", "Free cache pages of a rank.");
  for (const rpc::ReplicaState& replica : state.replicas()) {
    for (const rpc::RankReport& rank : replica.report().ranks()) {
      out.sample({{"replica", replica.id()}, {"rank", std::to_string(rank.rank())}}, static_cast<double>(rank.pages_free()));
    }
  }
  out.family("accrete:kv_head_slots", "gauge", "Mean slots of an open sequence's caches over layers and KV heads.");
  for (const rpc::ReplicaState& replica : state.replicas()) {
    const auto& slots = replica.report().head_slots();
    if (slots.empty()) continue;
    double sum = 0.0;
    for (double value : slots) sum += value;
    out.sample({{"replica", replica.id()}, {"of", "min"}}, *std::min_element(slots.begin(), slots.end()));
    out.sample({{"replica", replica.id()}, {"of", "mean"}}, sum / slots.size());
    out.sample({{"replica", replica.id()}, {"of", "max"}}, *std::max_element(slots.begin(), slots.end()));
  }
}

void iteration_tokens(MetricsText& out, const std::vector<uint64_t>& buckets) {
  out.family("accrete:iteration_tokens_total", "histogram", "Tokens of an engine step.");
  double total = 0.0;
  for (size_t i = 0; i < buckets.size(); ++i) {
    total += static_cast<double>(buckets[i]);
    const std::string bound = i < std::size(kIterationBounds) ? std::to_string(static_cast<int>(kIterationBounds[i])) : "+Inf";
    out.sample({{"le", bound}}, total, "_bucket");
  }
  out.sample({}, total, "_count");
}

}  // namespace

std::string render_metrics(const ServingMetrics& metrics, const Cluster& cluster) {
  const rpc::ClusterState state = cluster.state();
  const Cluster::Totals totals = cluster.totals();
  const Load load = load_of(state);
  MetricsText out;
  gauge(out, "num_requests_running", "Requests being computed.", load.running);
  gauge(out, "num_requests_waiting", "Requests that wait, at replicas and here.", load.waiting);
  gauge(out, "kv_cache_usage_perc", "Used part of the cache on the tightest rank, 0 to 1.", load.usage);
  counter(out, "num_preemptions_total", "Preempted sequences.", static_cast<double>(totals.preemptions));
  counter(out, "prompt_tokens_total", "Prompt tokens.", static_cast<double>(totals.prompt_tokens));
  counter(out, "generation_tokens_total", "Generated tokens.", static_cast<double>(totals.generation_tokens));
  out.family("accrete:request_success_total", "counter", "Finished requests by reason.");
  for (const auto& [reason, count] : metrics.finished) out.sample({{"finished_reason", reason}}, static_cast<double>(count));
  out.histogram("accrete:time_to_first_token_seconds", "Time to the first token.", {}, metrics.time_to_first_token);
  out.histogram("accrete:inter_token_latency_seconds", "Time between tokens.", {}, metrics.inter_token_latency);
  out.histogram("accrete:e2e_request_latency_seconds", "Time from request to its end.", {}, metrics.e2e_latency);
  out.histogram("accrete:request_queue_time_seconds", "Time a request waited for a replica.", {}, metrics.queue_time);
  out.histogram("accrete:request_prefill_time_seconds", "Time from a replica's taking a request to its first token.", {}, metrics.prefill_time);
  out.histogram("accrete:request_decode_time_seconds", "Time from first to last token.", {}, metrics.decode_time);
  iteration_tokens(out, totals.iteration_token_buckets);
  gauge(out, "kv_compression_ratio", "Cached tokens per slot over open sequences.", load.slots > 0 ? load.tokens / load.slots : 1.0);
  gauge(out, "kv_bytes_in_use", "Bytes of cache pages in use.", load.bytes_in_use);
  gauge(out, "kv_bytes_saved", "Bytes of cache that compression saves.", load.bytes_saved);
  replica_metrics(out, state);
  return out.text();
}

}  // namespace accrete::coordinator
