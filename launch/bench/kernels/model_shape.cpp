#include "launch/bench/kernels/model_shape.h"

#include <algorithm>

#include "kernels/check.h"

namespace accrete::launch {
namespace {

constexpr ModelShape kShapes[] = {
    {.name = "7b", .hidden = 4096, .mlp = 11008, .query_heads = 32, .kv_heads = 32, .vocab = 32000, .layers = 32},
    {.name = "13b", .hidden = 5120, .mlp = 13824, .query_heads = 40, .kv_heads = 40, .vocab = 32000, .layers = 40},
    {.name = "70b", .hidden = 8192, .mlp = 28672, .query_heads = 64, .kv_heads = 8, .vocab = 32000, .layers = 80},
    {.name = "70b-tp8", .hidden = 8192, .mlp = 3584, .query_heads = 8, .kv_heads = 1, .vocab = 4000, .layers = 80},
};

}  // namespace

std::span<const ModelShape> known_model_shapes() { return kShapes; }

std::vector<std::string> known_model_names() {
  std::vector<std::string> names;
  for (const ModelShape& shape : kShapes) names.emplace_back(shape.name);
  return names;
}

std::vector<ModelShape> model_shapes(std::span<const std::string> names) {
  std::vector<ModelShape> shapes;
  for (const std::string& name : names) {
    const auto found = std::find_if(std::begin(kShapes), std::end(kShapes), [&](const ModelShape& shape) { return shape.name == name; });
    CHECK(found != std::end(kShapes), name);
    shapes.push_back(*found);
  }
  return shapes;
}

}  // namespace accrete::launch
