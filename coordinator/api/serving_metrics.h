// ServingMetrics: what the coordinator counts of requests, with vLLM's names and buckets. Owned by the I/O thread.
#pragma once

#include <map>
#include <string>

#include "coordinator/cluster/cluster.h"
#include "net/metrics.h"

namespace accrete::coordinator {

struct ServingMetrics {
  std::map<std::string, uint64_t> finished;  // by finish reason
  net::Histogram time_to_first_token{0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0};
  net::Histogram inter_token_latency{0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 20.0, 40.0, 80.0};
  net::Histogram e2e_latency{0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0, 240.0, 480.0, 960.0, 1920.0, 7680.0};
  net::Histogram queue_time = e2e_latency;
  net::Histogram prefill_time = e2e_latency;
  net::Histogram decode_time = e2e_latency;
};

// The whole page of /metrics.
std::string render_metrics(const ServingMetrics& metrics, const Cluster& cluster);

}  // namespace accrete::coordinator
