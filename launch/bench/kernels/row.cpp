#include "launch/bench/kernels/row.h"

namespace accrete::launch {

Floor floor_of(const Cost& cost, const Ceilings& ceilings) {
  const bool reads = cost.memory == MemoryLimit::read, fp8 = cost.math == MathLimit::fp8;
  const double bandwidth = reads ? ceilings.read_gb_s : ceilings.copy_gb_s;
  const double rate = fp8 ? ceilings.fp8_tflop_s : ceilings.bf16_tflop_s;
  const double memory_us = bandwidth > 0 ? cost.bytes / bandwidth * 1e-3 : 0.0;
  const double math_us = rate > 0 ? cost.flops / rate * 1e-6 : 0.0;
  if (math_us > memory_us) return {math_us, fp8 ? "fp8" : "bf16"};
  return {memory_us, reads ? "read" : "copy"};
}

double percent_of_ceiling(const Row& row, const Ceilings& ceilings) {
  return row.timing.median_us > 0 ? 100.0 * floor_of(row.cost, ceilings).us / row.timing.median_us : 0.0;
}

}  // namespace accrete::launch
