#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "launch/bench/html_page.h"
#include "launch/bench/report.h"
#include "launch/bench/svg_plot.h"

namespace accrete::launch {
namespace {

std::string summary_row(const std::string& label, const std::string& value) {
  return fmt::format("<tr><td>{}</td><td>{}</td></tr>\n", label, escape_html(value));
}

std::string totals(const ServingReport& report) {
  const ServingSummary& s = report.summary;
  std::string html = "<table>\n";
  html += summary_row("Successful requests", std::to_string(s.succeeded));
  html += summary_row("Failed requests", std::to_string(s.failed));
  html += summary_row("Request rate (RPS)", std::isinf(report.request_rate) ? "all at once" : fmt::format("{:.2f}", report.request_rate));
  html += summary_row("Maximum concurrency", report.max_concurrency > 0 ? std::to_string(report.max_concurrency) : "no limit");
  html += summary_row("Duration (s)", fmt::format("{:.2f}", s.duration));
  html += summary_row("Input / generated tokens", fmt::format("{} / {}", s.input_tokens, s.output_tokens));
  html += summary_row("Requests per second", fmt::format("{:.2f}", s.request_throughput));
  html += summary_row("Generated tokens per second", fmt::format("{:.2f}", s.output_throughput));
  if (s.compression_ratio > 0) html += summary_row("Mean compression ratio", fmt::format("{:.2f}", s.compression_ratio));
  return html + "</table>\n";
}

std::string latency_row(const char* name, const Distribution& values) {
  std::string html = fmt::format("<tr><td>{}</td><td>{:.2f}</td><td>{:.2f}</td>", name, values.mean, values.median);
  for (const auto& entry : values.percentiles) html += fmt::format("<td>{:.2f}</td>", entry.second);
  return html + "</tr>\n";
}

std::string latencies(const ServingSummary& s) {
  std::string html = "<table>\n<tr><th>ms</th><th>mean</th><th>median</th>";
  for (const auto& entry : s.ttft.percentiles) html += fmt::format("<th>P{:g}</th>", entry.first);
  html += "</tr>\n";
  html += latency_row("Time to first token", s.ttft) + latency_row("Time per output token", s.tpot);
  return html + latency_row("Inter-token latency", s.itl) + latency_row("End-to-end latency", s.e2el) + "</table>\n";
}

std::string cumulative(const char* title, const Distribution& values) {
  SvgPlot plot{.title = title, .x_label = "milliseconds", .y_label = "per cent at or below", .points = {}};
  const auto count = static_cast<double>(values.sorted.size());
  for (size_t i = 0; i < values.sorted.size(); ++i) plot.points.emplace_back(values.sorted[i], 100.0 * static_cast<double>(i + 1) / count);
  return values.sorted.empty() ? "" : to_svg(plot);
}

std::string tokens_over_time(const ServingReport& report) {
  SvgPlot plot{.title = "Generated pieces per second", .x_label = "seconds", .y_label = "per second", .points = {}, .steps = true};
  const double bin = std::max(report.summary.duration / 60.0, 0.05);
  std::vector<double> counts(static_cast<size_t>(report.summary.duration / bin) + 1);
  for (const RequestRecord& record : report.records) {
    for (double when : record.token_times) counts[std::min(static_cast<size_t>(when / bin), counts.size() - 1)] += 1.0 / bin;
  }
  for (size_t i = 0; i < counts.size(); ++i) plot.points.emplace_back(static_cast<double>(i) * bin, counts[i]);
  return to_svg(plot);
}

std::string open_over_time(const ServingReport& report) {
  SvgPlot plot{.title = "Open requests", .x_label = "seconds", .y_label = "requests", .points = {{0.0, 0.0}}, .steps = true};
  std::multimap<double, int> events;
  for (const RequestRecord& record : report.records) {
    events.emplace(record.sent, 1);
    events.emplace(record.ended, -1);
  }
  int open = 0;
  for (const auto& [when, change] : events) plot.points.emplace_back(when, open += change);
  return to_svg(plot);
}

}  // namespace

std::string to_html(const ServingReport& report) {
  const ServingSummary& s = report.summary;
  const Provenance& p = report.provenance;
  std::string html = html_head("Accrete benchmark");
  html += fmt::format("<h1>Accrete benchmark</h1>\n<p class='where'>{} | backend {}</p>\n", escape_html(p.line()), escape_html(report.backend));
  if (p.synthetic_cr > 0 || p.dummy_weights) {
    html += fmt::format("<p class='synthetic'>Synthetic: {}{}{}. Speed and memory are meaningful, the text is not.</p>\n",
                        p.synthetic_cr > 0 ? "compression decisions are forced" : "", p.synthetic_cr > 0 && p.dummy_weights ? ", " : "",
                        p.dummy_weights ? "weights are random" : "");
  }
  html += totals(report) + latencies(s) + "<div class='plots'>\n";
  html += cumulative("Time to first token", s.ttft) + cumulative("Time per output token", s.tpot);
  html += cumulative("Inter-token latency", s.itl) + cumulative("End-to-end latency", s.e2el);
  html += tokens_over_time(report) + open_over_time(report);
  return html + "</div>\n</body></html>\n";
}

}  // namespace accrete::launch
