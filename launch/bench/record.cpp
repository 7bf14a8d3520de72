#include "launch/bench/record.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <numeric>

namespace accrete::launch {
namespace {

constexpr double kMilliseconds = 1000.0;

// Most entries of sorted `times` within one second.
double busiest_second(std::vector<double> times) {
  std::sort(times.begin(), times.end());
  size_t most = 0;
  for (size_t begin = 0, end = 0; end < times.size(); ++end) {
    while (times[end] - times[begin] >= 1.0) ++begin;
    most = std::max(most, end - begin + 1);
  }
  return static_cast<double>(most);
}

int64_t peak_concurrency(const std::vector<RequestRecord>& records) {
  std::vector<std::pair<double, int>> events;
  for (const RequestRecord& record : records) {
    events.emplace_back(record.sent, 1);
    events.emplace_back(record.ended, -1);
  }
  std::sort(events.begin(), events.end());
  int64_t open = 0, peak = 0;
  for (const auto& event : events) peak = std::max(peak, open += event.second);
  return peak;
}

struct Samples {
  std::vector<double> ttft, tpot, itl, e2el, arrivals, ratios;
};

void collect(const RequestRecord& record, Samples& samples) {
  const std::vector<double>& times = record.token_times;
  samples.e2el.push_back((record.ended - record.sent) * kMilliseconds);
  if (record.compression_ratio > 0) samples.ratios.push_back(record.compression_ratio);
  if (times.empty()) return;
  samples.ttft.push_back((times.front() - record.sent) * kMilliseconds);
  for (size_t i = 1; i < times.size(); ++i) samples.itl.push_back((times[i] - times[i - 1]) * kMilliseconds);
  if (record.output_tokens > 1) {
    samples.tpot.push_back((times.back() - times.front()) / static_cast<double>(record.output_tokens - 1) * kMilliseconds);
  }
  samples.arrivals.insert(samples.arrivals.end(), times.begin(), times.end());
}

}  // namespace

std::string Provenance::line() const {
  std::string cr = "CR 1 (no compression)";
  if (synthetic_cr > 0) cr = fmt::format("CR {:g} (synthetic decisions)", synthetic_cr);
  else if (target_cr > 0) cr = fmt::format("CR {:g} (the model's own)", target_cr);
  return fmt::format("{} | {} | {} | {} | {}{}", model, device, dtype, shape, cr, dummy_weights ? " | synthetic (random) weights" : "");
}

double percentile(const std::vector<double>& sorted, double p) {
  const double rank = p / 100.0 * static_cast<double>(sorted.size() - 1);
  const auto below = static_cast<size_t>(std::floor(rank));
  const size_t above = std::min(below + 1, sorted.size() - 1);
  return sorted[below] + (rank - static_cast<double>(below)) * (sorted[above] - sorted[below]);
}

Distribution distribution(std::vector<double> values, const std::vector<double>& percentiles) {
  Distribution result;
  for (double p : percentiles) result.percentiles.emplace_back(p, 0.0);
  if (values.empty()) return result;
  std::sort(values.begin(), values.end());
  const auto count = static_cast<double>(values.size());
  result.mean = std::accumulate(values.begin(), values.end(), 0.0) / count;
  double squares = 0.0;
  for (double value : values) squares += (value - result.mean) * (value - result.mean);
  result.deviation = std::sqrt(squares / count);
  result.median = percentile(values, 50);
  for (auto& [p, value] : result.percentiles) value = percentile(values, p);
  result.sorted = std::move(values);
  return result;
}

ServingSummary summarise(const std::vector<RequestRecord>& records, double duration, const std::vector<double>& percentiles) {
  ServingSummary summary;
  summary.duration = std::max(duration, 1e-9);
  Samples samples;
  for (const RequestRecord& record : records) {
    if (!record.error.empty()) {
      if (summary.failed++ == 0) summary.first_error = record.error;
      continue;
    }
    ++summary.succeeded;
    summary.input_tokens += record.input_tokens;
    summary.output_tokens += record.output_tokens;
    collect(record, samples);
  }
  summary.request_throughput = static_cast<double>(summary.succeeded) / summary.duration;
  summary.output_throughput = static_cast<double>(summary.output_tokens) / summary.duration;
  summary.total_throughput = static_cast<double>(summary.input_tokens + summary.output_tokens) / summary.duration;
  summary.peak_output_throughput = busiest_second(std::move(samples.arrivals));
  summary.peak_concurrency = peak_concurrency(records);
  summary.compression_ratio = distribution(std::move(samples.ratios), {}).mean;
  summary.ttft = distribution(std::move(samples.ttft), percentiles);
  summary.tpot = distribution(std::move(samples.tpot), percentiles);
  summary.itl = distribution(std::move(samples.itl), percentiles);
  summary.e2el = distribution(std::move(samples.e2el), percentiles);
  return summary;
}

}  // namespace accrete::launch
