// A decode plan and the device memory that it is in. In builds with CUDA.
#pragma once

#include "kernels/attention/decode_plan.h"
#include "kernels/device/device_memory.h"

namespace accrete::launch {

struct PlanMemory {
  DecodePlan plan;
  DeviceMemory memory;

  PlanMemory(const DecodePlanShape& shape, Stream& stream) : memory(shape.bytes()) {
    fill_device(memory.data(), 0, memory.bytes(), stream);
    plan = decode_plan(shape, memory.data());
  }
};

}  // namespace accrete::launch
