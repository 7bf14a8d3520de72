#include "launch/bench/decode/decode_report.h"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "launch/bench/html_page.h"
#include "launch/bench/svg_plot.h"

namespace accrete::launch {
namespace {

// Over the first row without compression, of those with the same way of choosing the batch.
double over_plain(const DecodeReport& report, const DecodeRow& row) {
  for (const DecodeRow& plain : report.rows) {
    if (plain.cr == 1.0 && plain.largest == row.largest && plain.tokens_per_second() > 0) return row.tokens_per_second() / plain.tokens_per_second();
  }
  return 0.0;
}

std::string heading(const DecodeReport& report) {
  return fmt::format("{} | {} | prompt {} + {} tokens{}, caches filled with random entries{} | copy {:.0f} GB/s", report.provenance.line(), report.gpu,
                     report.input_len, report.output_len, report.spread ? ", sequences spread over their lives" : "", report.provenance.synthetic_cr > 0 ? ", decisions forced" : "", report.roofline.bandwidth / 1e9);
}

std::string cells(const DecodeReport& report, const DecodeRow& row, const std::string& between) {
  std::string text;
  const auto add = [&](const std::string& cell) { text += (text.empty() ? "" : between) + cell; };
  add(fmt::format("{:g}", row.cr));
  add(std::to_string(row.batch) + (row.largest ? " (largest)" : ""));
  add(fmt::format("{:.0f}", row.context));
  add(fmt::format("{:.0f}", row.slots));
  add(fmt::format("{:.3f}", row.step_median * 1e3));
  add(fmt::format("{:.1f}", row.tokens_per_second()));
  add(fmt::format("{:.2f}", over_plain(report, row)));
  add(row.limit.total() > 0 ? fmt::format("{:.1f}", 100 * row.of_limit()) : "-");
  add(row.device_share > 0 ? fmt::format("{:.2f}", 100 * (1 - row.device_share)) : "-");
  add(fmt::format("{:.1f}", static_cast<double>(row.pages_used * row.page_bytes) / 1e9));
  return text;
}

constexpr const char* kColumns[] = {"CR", "batch", "context", "slots", "step ms", "tok/s", "x CR 1", "% of limit", "host gap %", "cache GB"};

std::string plot(const DecodeReport& report, const char* title, const char* label, double (*value)(const DecodeRow&)) {
  SvgPlot plot{.title = title, .x_label = "compression ratio", .y_label = label, .points = {}};
  for (const DecodeRow& row : report.rows) plot.points.emplace_back(row.cr, value(row));
  return plot.points.size() > 1 ? to_svg(plot) : "";
}

std::string parts_table(const DecodeReport& report) {
  std::string html;
  for (const DecodeRow& row : report.rows) {
    if (row.parts.empty()) continue;
    double total = 0;
    for (const auto& part : row.parts) total += part.second;
    html += fmt::format("<h2>Where a step's time goes, CR {:g}, batch {}</h2>\n<p class='where'>Operations timed one by one, without a graph: "
                        "small ones look longer than they are.</p>\n<table><tr><th>operation</th><th>ms</th><th>%</th><th></th></tr>\n", row.cr, row.batch);
    for (const auto& [name, ms] : row.parts) {
      html += fmt::format("<tr><td>{}</td><td>{:.3f}</td><td>{:.1f}</td><td><div class='bar' style='width:{:.0f}px'></div></td></tr>\n", escape_html(name), ms,
                          100 * ms / total, 300 * ms / total);
    }
    html += "</table>\n";
  }
  return html;
}

}  // namespace

std::string text_table(const DecodeReport& report) {
  std::string text = heading(report) + "\n";
  for (const char* column : kColumns) text += fmt::format("{:>14}", column);
  for (const DecodeRow& row : report.rows) {
    text += "\n";
    std::string line = cells(report, row, "\t");
    for (size_t at = 0; at <= line.size();) {
      const size_t end = std::min(line.find('\t', at), line.size());
      text += fmt::format("{:>14}", line.substr(at, end - at));
      at = end + 1;
    }
    for (const auto& [name, ms] : row.parts) text += fmt::format("\n    {:<24} {:9.3f} ms", name, ms);
  }
  return text + "\n";
}

nlohmann::json to_json(const DecodeReport& report) {
  const Provenance& p = report.provenance;
  nlohmann::json rows = nlohmann::json::array();
  for (const DecodeRow& row : report.rows) {
    const StepLimit& limit = row.limit;
    nlohmann::json parts = nlohmann::json::object();
    for (const auto& [name, ms] : row.parts) parts[name] = ms;
    rows.push_back({{"cr", row.cr}, {"synthetic_decisions", row.cr > 1.0}, {"batch", row.batch}, {"largest_batch", row.largest}, {"steps", row.steps},
                    {"mean_context", row.context}, {"mean_slots", row.slots}, {"step_ms_median", row.step_median * 1e3}, {"step_ms_mean", row.step_mean * 1e3},
                    {"tokens_per_s", row.tokens_per_second()}, {"over_cr1", over_plain(report, row)}, {"device_share", row.device_share},
                    {"pages_total", row.pages_total}, {"pages_used", row.pages_used}, {"page_bytes", row.page_bytes}, {"weight_bytes", row.weight_bytes},
                    {"limit_ms", {{"weights", limit.weights * 1e3}, {"products", limit.products * 1e3}, {"cache", limit.cache * 1e3},
                                  {"logits", limit.logits * 1e3}, {"gaps", limit.gaps * 1e3}, {"all_reduce", limit.all_reduce * 1e3}, {"total", limit.total() * 1e3}}},
                    {"of_limit", row.of_limit()}, {"parts_ms", parts}});
  }
  return {{"model", p.model}, {"device", p.device}, {"gpu", report.gpu}, {"dtype", p.dtype}, {"shape", p.shape}, {"dummy_weights", p.dummy_weights},
          {"input_len", report.input_len}, {"output_len", report.output_len}, {"spread", report.spread}, {"copy_bytes_per_s", report.roofline.bandwidth}, {"rows", rows}};
}

std::string to_html(const DecodeReport& report) {
  std::string html = html_head("Accrete: decode");
  html += fmt::format("<h1>Decode</h1>\n<p class='where'>{}</p>\n", escape_html(heading(report)));
  html += "<p class='synthetic'>Prompts are not computed, caches hold random entries; compression decisions are forced where CR is above 1. Speed and "
          "memory are meaningful, the text is not.</p>\n<table><tr>";
  for (const char* column : kColumns) html += fmt::format("<th>{}</th>", column);
  html += "</tr>\n";
  for (const DecodeRow& row : report.rows) html += "<tr><td>" + cells(report, row, "</td><td>") + "</td></tr>\n";
  html += "</table>\n<div class='plots'>\n";
  html += plot(report, "Generated tokens per second", "tok/s", [](const DecodeRow& row) { return row.tokens_per_second(); });
  html += plot(report, "Batch", "sequences", [](const DecodeRow& row) { return static_cast<double>(row.batch); });
  html += plot(report, "Of the memory-bandwidth limit", "per cent", [](const DecodeRow& row) { return 100 * row.of_limit(); });
  html += plot(report, "Step", "ms", [](const DecodeRow& row) { return row.step_median * 1e3; });
  return html + "</div>\n" + parts_table(report) + "</body></html>\n";
}

}  // namespace accrete::launch
