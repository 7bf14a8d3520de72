// A benchmark's result as text (the block that users of such tools know), JSON and one HTML file with plots.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launch/bench/record.h"

namespace accrete::launch {

struct ServingReport {
  Provenance provenance;
  ServingSummary summary;
  std::vector<RequestRecord> records;
  std::string backend;                // "openai", "rpc" or "engine"
  double request_rate = 0.0;          // infinity: all at once
  int64_t max_concurrency = 0;        // 0: no limit
  std::vector<std::string> metrics;   // of ttft, tpot, itl, e2el: which to print
};

// "============ Serving Benchmark Result ============" and so on.
std::string text_block(const ServingReport& report);
nlohmann::json to_json(const ServingReport& report);
std::string to_html(const ServingReport& report);

// Throws std::runtime_error naming the path when it cannot be written.
void write_file(const std::string& path, const std::string& text);

}  // namespace accrete::launch
