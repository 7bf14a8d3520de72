// The measurements behind `accrete bench kernels`. In builds with CUDA, but for the options.
#pragma once

#include <string>
#include <vector>

#include "launch/bench/kernels/model_shape.h"

namespace accrete::launch {

struct KernelBenchOptions {
  std::vector<ModelShape> models;
  std::string filter;       // regular expression searched in "kernel model shape"; empty: everything
  bool quick = false;       // fewer shapes and replays
  std::string output_json;  // empty: none
};

// Measures and prints on the first GPU. False when some measurement failed; what did is on stderr and in the JSON.
bool run_kernel_bench(const KernelBenchOptions& options);

class Lab;

// One kernel family each; every one adds rows to the lab's report.
void measure_ceilings(Lab& lab);
void measure_pointwise(Lab& lab, const ModelShape& model);
void measure_products(Lab& lab, const ModelShape& model);
void measure_update(Lab& lab, const ModelShape& model);
void measure_decode(Lab& lab, const ModelShape& model);
void measure_prompt(Lab& lab, const ModelShape& model);
void measure_mixed(Lab& lab, const ModelShape& model);
void measure_bookkeeping(Lab& lab, const ModelShape& model);
void measure_sampling(Lab& lab);

}  // namespace accrete::launch
