#include "launch/bench/kernels/kernel_bench.h"

#include <fmt/format.h>

#include <cstdio>
#include <exception>
#include <nlohmann/json.hpp>

#include "launch/bench/kernels/lab.h"
#include "launch/bench/report.h"

namespace accrete::launch {
namespace {

// As far as it is: whatever ends the run later, the file holds what was measured.
void save(const Lab& lab, const KernelBenchOptions& options) {
  if (!options.output_json.empty()) write_file(options.output_json, to_json(lab.report()).dump(2) + "\n");
}

// A family that fails leaves the others their turn.
template <class Measure>
void attempt(Lab& lab, const std::string& what, Measure&& measure) {
  try {
    measure();
  } catch (const std::exception& error) {
    lab.fail(fmt::format("{}: {}", what, error.what()));
  }
}

struct Family {
  const char* name;
  void (*measure)(Lab&, const ModelShape&);
};
constexpr Family kFamilies[] = {{"decode attention", measure_decode}, {"cache update", measure_update},   {"prompt attention", measure_prompt},
                                {"attention of mixed steps", measure_mixed}, {"products", measure_products},
                                {"pointwise", measure_pointwise}, {"bookkeeping", measure_bookkeeping}};

}  // namespace

bool run_kernel_bench(const KernelBenchOptions& options) {
  Lab lab(options);
  measure_ceilings(lab);
  fmt::print("{}\n", table_head(lab.report()));
  for (const Family& family : kFamilies) {
    for (const ModelShape& model : options.models) {
      attempt(lab, fmt::format("{} of {}", family.name, model.name), [&] { family.measure(lab, model); });
      save(lab, options);
    }
  }
  attempt(lab, "sampling", [&] { measure_sampling(lab); });
  save(lab, options);
  return lab.report().failures.empty();
}

}  // namespace accrete::launch
