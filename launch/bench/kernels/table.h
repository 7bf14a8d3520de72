// The measured rows as an aligned table and as JSON.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <string>
#include <vector>

#include "launch/bench/kernels/row.h"

namespace accrete::launch {

struct KernelReport {
  std::string device;
  Ceilings ceilings;
  std::vector<Row> rows;
  std::vector<std::string> failures;  // what could not be measured, and why
};

// Lines without their end, all of one layout, so that a row can be printed as soon as it is there.
std::string table_head(const KernelReport& report);
std::string table_line(const Row& row, const Ceilings& ceilings);

nlohmann::json to_json(const KernelReport& report);

}  // namespace accrete::launch
