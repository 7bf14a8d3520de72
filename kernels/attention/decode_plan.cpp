#include "kernels/attention/decode_plan.h"

namespace accrete {
namespace {

size_t aligned(size_t bytes) { return (bytes + 255) / 256 * 256; }

}  // namespace

size_t DecodePlanShape::bytes() const {
  const size_t all_items = items(max_sequences), all_workers = workers();
  return aligned(2 * 4) + aligned(layers * (all_items + 1) * 4) + aligned(layers * (all_workers + 1) * 4) + aligned(layers * 4) +
         aligned(all_items * 4) + aligned(all_workers * 2 * 4) + aligned(all_workers * 2 * partial_floats() * 4);
}

DecodePlan decode_plan(const DecodePlanShape& shape, void* memory) {
  auto* at = static_cast<char*>(memory);
  const auto take = [&](size_t bytes) {
    char* mine = at;
    at += aligned(bytes);
    return mine;
  };
  const size_t items = shape.items(shape.max_sequences), workers = shape.workers();
  DecodePlan plan;
  plan.shape = shape;
  plan.claims = reinterpret_cast<uint32_t*>(take(2 * 4));
  plan.prefix = reinterpret_cast<int32_t*>(take(shape.layers * (items + 1) * 4));
  plan.first_item = reinterpret_cast<int32_t*>(take(shape.layers * (workers + 1) * 4));
  plan.range = reinterpret_cast<int32_t*>(take(shape.layers * 4));
  plan.arrived = reinterpret_cast<int32_t*>(take(items * 4));
  plan.group_arrived = reinterpret_cast<int32_t*>(take(workers * 2 * 4));
  plan.partial = reinterpret_cast<float*>(at);
  return plan;
}

}  // namespace accrete
