// What a benchmark measured about one request, and what all of them sum up to.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace accrete::launch {

// Times are seconds since the benchmark's start.
struct RequestRecord {
  double sent = 0.0;
  std::vector<double> token_times;  // arrival of each piece of the stream; the first is the first token
  double ended = 0.0;
  int64_t input_tokens = 0;
  int64_t output_tokens = 0;
  double compression_ratio = 0.0;  // as the server reported it; 0: it did not
  std::string error;               // empty: success
};

// Under which circumstances figures were taken. Printed with every one of them.
struct Provenance {
  std::string model;
  std::string device;
  std::string dtype;
  std::string shape;          // "TP 2 x PP 1, 1 replica"
  double target_cr = 0.0;     // the model's own; 0: not a DMC model
  double synthetic_cr = 0.0;  // > 0: forced decisions
  bool dummy_weights = false;

  // "SmolLM2 | cpu | bfloat16 | TP 2 x PP 1, 1 replica | CR 4 (synthetic decisions)"
  std::string line() const;
};

struct Distribution {
  double mean = 0.0, median = 0.0, deviation = 0.0;
  std::vector<std::pair<double, double>> percentiles;  // (99, value)
  std::vector<double> sorted;                          // all values, for plots
};

// Linear interpolation between the neighbours of rank p/100 * (n-1). `sorted` must not be empty.
double percentile(const std::vector<double>& sorted, double p);
Distribution distribution(std::vector<double> values, const std::vector<double>& percentiles);

struct ServingSummary {
  int64_t succeeded = 0, failed = 0;
  double duration = 0.0;  // seconds
  int64_t input_tokens = 0, output_tokens = 0;
  double request_throughput = 0.0, output_throughput = 0.0, total_throughput = 0.0;
  double peak_output_throughput = 0.0;  // pieces of streams that arrived within the busiest second
  int64_t peak_concurrency = 0;
  double compression_ratio = 0.0;       // mean over requests that reported one
  Distribution ttft, tpot, itl, e2el;   // milliseconds
  std::string first_error;
};

ServingSummary summarise(const std::vector<RequestRecord>& records, double duration, const std::vector<double>& percentiles);

}  // namespace accrete::launch
