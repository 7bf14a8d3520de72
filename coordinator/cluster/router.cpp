#include "coordinator/cluster/router.h"

#include <algorithm>
#include <cmath>
#include <tuple>

namespace accrete::coordinator {

int64_t predicted_pages(const RouterView& replica, int64_t tokens) {
  const double slots = std::ceil(static_cast<double>(tokens) / std::max(1.0, replica.compression));
  const auto pages = static_cast<int64_t>(std::ceil(slots / static_cast<double>(std::max<int64_t>(1, replica.page_slots))));
  return pages * replica.heads;
}

std::optional<size_t> pick_replica(std::span<const RouterView> replicas, int64_t tokens) {
  std::optional<size_t> best;
  const auto score = [&](size_t i) { return std::tuple(replicas[i].pages_free - predicted_pages(replicas[i], tokens), -replicas[i].requests); };
  for (size_t i = 0; i < replicas.size(); ++i) {
    if (!replicas[i].accepts || replicas[i].requests >= replicas[i].max_requests) continue;
    if (!best || score(i) > score(*best)) best = i;
  }
  return best;
}

}  // namespace accrete::coordinator
