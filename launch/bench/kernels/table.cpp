#include "launch/bench/kernels/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

namespace accrete::launch {
namespace {

constexpr int kKernelWidth = 17;
constexpr int kModelWidth = 7;
constexpr int kShapeWidth = 40;
// What every figure must say of itself.
constexpr const char* kInputs = "random values; decisions and cache lengths drawn, not a model's";

// Four digits that matter: 0.1234 to 12340.
std::string figure(double value) {
  if (value <= 0) return "-";
  const int decimals = value < 1 ? 3 : value < 10 ? 2 : value < 1000 ? 1 : 0;
  return fmt::format("{:.{}f}", value, decimals);
}

std::string line(const Label& label, const std::vector<std::string>& figures) {
  std::string text = fmt::format("{:<{}} {:<{}} {:<{}}", label.kernel, kKernelWidth, label.model, kModelWidth, label.shape, kShapeWidth);
  for (const std::string& value : figures) text += fmt::format(" {:>8}", value);
  return text;
}

}  // namespace

std::string table_head(const KernelReport& report) {
  const Ceilings& c = report.ceilings;
  std::string text = fmt::format("{} | {}\n", report.device, kInputs);
  text += fmt::format("Ceilings: copy {:.0f} GB/s (read + written), read {:.0f} GB/s, product bf16 {:.0f} TFLOP/s, fp8 {:.0f} TFLOP/s\n",
                      c.copy_gb_s, c.read_gb_s, c.bf16_tflop_s, c.fp8_tflop_s);
  text += "us: median of one launch; MB, GFLOP: the least it must do; %: of the ceiling named\n\n";
  return text + line({"kernel", "model", "shape"}, {"us", "MB", "GFLOP", "GB/s", "TFLOP/s", "%"}) + " of";
}

std::string table_line(const Row& row, const Ceilings& ceilings) {
  const std::string percent = fmt::format("{:.1f}", percent_of_ceiling(row, ceilings));
  std::string text = line(row.label, {figure(row.timing.median_us), figure(row.cost.bytes * 1e-6), figure(row.cost.flops * 1e-9),
                                      figure(row.gb_s()), figure(row.tflop_s()), percent});
  text += fmt::format(" {}", floor_of(row.cost, ceilings).by);
  if (!row.note.empty()) text += "  " + row.note;
  return text;
}

nlohmann::json to_json(const KernelReport& report) {
  const Ceilings& c = report.ceilings;
  nlohmann::json rows = nlohmann::json::array();
  for (const Row& row : report.rows) {
    rows.push_back({{"kernel", row.label.kernel}, {"model", row.label.model}, {"shape", row.label.shape}, {"median_us", row.timing.median_us},
                    {"p10_us", row.timing.low_us}, {"p90_us", row.timing.high_us}, {"bytes", row.cost.bytes}, {"flops", row.cost.flops},
                    {"gb_per_s", row.gb_s()}, {"tflop_per_s", row.tflop_s()}, {"percent_of_ceiling", percent_of_ceiling(row, c)},
                    {"ceiling", floor_of(row.cost, c).by}, {"note", row.note}});
  }
  return {{"device", report.device}, {"inputs", kInputs},
          {"ceilings", {{"copy_gb_per_s", c.copy_gb_s}, {"read_gb_per_s", c.read_gb_s}, {"bf16_tflop_per_s", c.bf16_tflop_s}, {"fp8_tflop_per_s", c.fp8_tflop_s}}},
          {"rows", rows}, {"failures", report.failures}};
}

}  // namespace accrete::launch
