#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "launch/bench/report.h"

namespace accrete::launch {
namespace {

constexpr int kWidth = 50;

struct Metric {
  const char* key;
  const char* name;
  const char* title;
  const Distribution ServingSummary::*values;
};
constexpr Metric kMetrics[] = {
    {"ttft", "TTFT", "Time to First Token", &ServingSummary::ttft},
    {"tpot", "TPOT", "Time per Output Token (excl. 1st token)", &ServingSummary::tpot},
    {"itl", "ITL", "Inter-token Latency", &ServingSummary::itl},
    {"e2el", "E2EL", "End-to-end Latency", &ServingSummary::e2el},
};

std::string row(const std::string& label, int64_t value) { return fmt::format("{:<40} {:<10}\n", label, value); }
std::string row(const std::string& label, double value) { return fmt::format("{:<40} {:<10.2f}\n", label, value); }
std::string centred(const std::string& title, char fill) {
  const std::string line = fill == '=' ? fmt::format("{:=^{}}", title, kWidth) : fmt::format("{:-^{}}", title, kWidth);
  return line + "\n";
}

std::string metric_block(const Metric& metric, const Distribution& values) {
  std::string text = centred(metric.title, '-');
  text += row(fmt::format("Mean {} (ms):", metric.name), values.mean);
  text += row(fmt::format("Median {} (ms):", metric.name), values.median);
  for (const auto& [p, value] : values.percentiles) text += row(fmt::format("P{:g} {} (ms):", p, metric.name), value);
  return text;
}

nlohmann::json rate_json(double rate) { return std::isinf(rate) ? nlohmann::json("inf") : nlohmann::json(rate); }

}  // namespace

std::string text_block(const ServingReport& report) {
  const ServingSummary& s = report.summary;
  std::string text = centred(" Serving Benchmark Result ", '=');
  text += row("Successful requests:", s.succeeded);
  text += row("Failed requests:", s.failed);
  if (report.max_concurrency > 0) text += row("Maximum request concurrency:", report.max_concurrency);
  if (!std::isinf(report.request_rate)) text += row("Request rate configured (RPS):", report.request_rate);
  text += row("Benchmark duration (s):", s.duration);
  text += row("Total input tokens:", s.input_tokens);
  text += row("Total generated tokens:", s.output_tokens);
  text += row("Request throughput (req/s):", s.request_throughput);
  text += row("Output token throughput (tok/s):", s.output_throughput);
  text += row("Peak output token throughput (tok/s):", s.peak_output_throughput);
  text += row("Peak concurrent requests:", s.peak_concurrency);
  text += row("Total Token throughput (tok/s):", s.total_throughput);
  if (s.compression_ratio > 0) text += row("Mean compression ratio:", s.compression_ratio);
  for (const Metric& metric : kMetrics) {
    if (std::find(report.metrics.begin(), report.metrics.end(), metric.key) != report.metrics.end()) {
      text += metric_block(metric, s.*metric.values);
    }
  }
  text += std::string(kWidth, '=') + "\n";
  text += report.provenance.line() + "\n";
  if (s.failed > 0) text += fmt::format("First error: {}\n", s.first_error);
  return text;
}

nlohmann::json to_json(const ServingReport& report) {
  const ServingSummary& s = report.summary;
  const Provenance& p = report.provenance;
  nlohmann::json json = {
      {"backend", report.backend}, {"model", p.model}, {"device", p.device}, {"dtype", p.dtype}, {"shape", p.shape},
      {"target_cr", p.target_cr}, {"synthetic_cr", p.synthetic_cr}, {"synthetic_decisions", p.synthetic_cr > 0},
      {"dummy_weights", p.dummy_weights}, {"request_rate", rate_json(report.request_rate)},
      {"max_concurrency", report.max_concurrency}, {"completed", s.succeeded}, {"failed", s.failed}, {"duration", s.duration},
      {"total_input_tokens", s.input_tokens}, {"total_output_tokens", s.output_tokens},
      {"request_throughput", s.request_throughput}, {"output_throughput", s.output_throughput},
      {"total_token_throughput", s.total_throughput}, {"mean_compression_ratio", s.compression_ratio}};
  for (const Metric& metric : kMetrics) {
    const Distribution& values = s.*metric.values;
    json[fmt::format("mean_{}_ms", metric.key)] = values.mean;
    json[fmt::format("median_{}_ms", metric.key)] = values.median;
    json[fmt::format("std_{}_ms", metric.key)] = values.deviation;
    for (const auto& [rank, value] : values.percentiles) json[fmt::format("p{:g}_{}_ms", rank, metric.key)] = value;
  }
  return json;
}

void write_file(const std::string& path, const std::string& text) {
  std::unique_ptr<FILE, int (*)(FILE*)> file(std::fopen(path.c_str(), "w"), std::fclose);
  if (file == nullptr || std::fwrite(text.data(), 1, text.size(), file.get()) != text.size() || std::fflush(file.get()) != 0) {
    throw std::runtime_error(fmt::format("cannot write {}", path));
  }
}

}  // namespace accrete::launch
