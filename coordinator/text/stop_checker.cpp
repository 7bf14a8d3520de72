#include "coordinator/text/stop_checker.h"

#include <algorithm>
#include <utility>

namespace accrete::coordinator {

StopChecker::StopChecker(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::erase_if(stops_, [](const std::string& stop) { return stop.empty(); });
  for (const std::string& stop : stops_) longest_ = std::max(longest_, stop.size());
}

StopChecker::Result StopChecker::push(std::string_view piece) {
  if (stops_.empty()) return {std::string(piece), false};
  held_ += piece;
  size_t first = std::string::npos;
  for (const std::string& stop : stops_) first = std::min(first, held_.find(stop));
  if (first != std::string::npos) {
    held_.resize(first);
    return {std::exchange(held_, ""), true};
  }
  // The longest end of what is held that begins a stop string stays.
  size_t keep = 0;
  for (const std::string& stop : stops_) {
    const std::string_view text = held_;
    for (size_t length = std::min(stop.size() - 1, text.size()); length > keep; --length) {
      if (text.substr(text.size() - length) == std::string_view(stop).substr(0, length)) keep = length;
    }
  }
  Result result{held_.substr(0, held_.size() - keep), false};
  held_.erase(0, held_.size() - keep);
  return result;
}

std::string StopChecker::flush() { return std::exchange(held_, ""); }

}  // namespace accrete::coordinator
