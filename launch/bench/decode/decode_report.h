// What `accrete bench decode` measured, as a table, JSON and one HTML file.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <utility>
#include <vector>

#include "launch/bench/decode/roofline.h"
#include "launch/bench/record.h"

namespace accrete::launch {

// One compression ratio at one batch.
struct DecodeRow {
  double cr = 1.0;               // asked for; 1: none
  int64_t batch = 0;
  bool largest = false;          // that fits
  int64_t steps = 0;
  double context = 0.0;          // tokens of a sequence, mean
  double slots = 0.0;            // of a head, mean
  double step_median = 0.0;      // seconds
  double step_mean = 0.0;
  double device_share = 0.0;     // of the steps' time that the GPU worked; 0: not known
  int64_t pages_total = 0, pages_used = 0, page_bytes = 0;
  int64_t weight_bytes = 0;
  StepLimit limit;               // no bandwidth known: zero
  std::vector<std::pair<std::string, double>> parts;  // milliseconds of a step by operation, from steps run for that alone
  double tokens_per_second() const { return step_mean > 0 ? static_cast<double>(batch) / step_mean : 0; }
  double of_limit() const { return limit.total() > 0 ? tokens_per_second() / limit.tokens_per_second(batch) : 0; }
};

struct DecodeReport {
  Provenance provenance;         // synthetic_cr of the rows, not of one run
  std::string gpu;
  int64_t input_len = 0, output_len = 0;
  bool spread = false;           // sequences are at all points of their lives, not half-way
  RooflineGpu roofline;          // with the bandwidth measured in this run
  std::vector<DecodeRow> rows;
};

std::string text_table(const DecodeReport& report);
nlohmann::json to_json(const DecodeReport& report);
std::string to_html(const DecodeReport& report);

}  // namespace accrete::launch
