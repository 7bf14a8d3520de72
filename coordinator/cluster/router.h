// Router: which replica takes a request. Pure.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>

namespace accrete::coordinator {

// What routing needs to know of a replica.
struct RouterView {
  std::string id;
  bool accepts = true;        // up, not draining
  int64_t pages_free = 0;     // of its tightest rank, by its last report, less what was routed to it since
  int64_t heads = 1;          // caches of that rank: layers * KV heads
  int64_t page_slots = 16;
  double compression = 1.0;   // tokens per slot it has seen
  int64_t requests = 0;       // open ones
  int64_t max_requests = 1;   // beyond it a request waits at the coordinator
};

// Pages of the tightest rank that `tokens` will take at the replica's observed compression.
int64_t predicted_pages(const RouterView& replica, int64_t tokens);

// The replica with the most free pages after taking `tokens`; among equals the one with the fewest requests, then the first. Nothing when none
// accepts or all are full.
std::optional<size_t> pick_replica(std::span<const RouterView> replicas, int64_t tokens);

}  // namespace accrete::coordinator
