// What `accrete bench kernels` says of one kernel at one shape, and what it is held against.
#pragma once

#include <cstdint>
#include <string>

namespace accrete::launch {

// The limits of a GPU, measured in the same run as what is held against them.
struct Ceilings {
  double copy_gb_s = 0.0;     // device-to-device copy, bytes read plus bytes written
  double read_gb_s = 0.0;     // a pass that only reads
  double bf16_tflop_s = 0.0;  // a large product
  double fp8_tflop_s = 0.0;
};

enum class MemoryLimit : uint8_t { copy, read };
enum class MathLimit : uint8_t { bf16, fp8 };

// The least that one launch must do: every input read once, every output written once.
struct Cost {
  double bytes = 0.0;
  double flops = 0.0;
  MemoryLimit memory = MemoryLimit::copy;
  MathLimit math = MathLimit::bf16;
  Cost times(double count) const { return {bytes * count, flops * count, memory, math}; }
};

struct Label {
  std::string kernel;
  std::string model;  // "7b", or "-" when it is no model's
  std::string shape;
  std::string text() const { return kernel + " " + model + " " + shape; }
};

// Microseconds of one launch, over the replays.
struct Timing {
  double median_us = 0.0;
  double low_us = 0.0, high_us = 0.0;  // 10th and 90th percentile
};

struct Row {
  Label label;
  Cost cost;
  Timing timing;
  std::string note;

  double gb_s() const { return cost.bytes / timing.median_us * 1e-3; }
  double tflop_s() const { return cost.flops / timing.median_us * 1e-6; }
};

// The shortest time that the ceilings allow, and which of them says so.
struct Floor {
  double us = 0.0;
  const char* by = "";
};
Floor floor_of(const Cost& cost, const Ceilings& ceilings);

// 100: as fast as the ceilings allow.
double percent_of_ceiling(const Row& row, const Ceilings& ceilings);

}  // namespace accrete::launch
