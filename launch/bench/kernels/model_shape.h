// The dimensions of the Llamas whose kernels are measured, as one rank sees them (letters: kernels/README.md).
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace accrete::launch {

struct ModelShape {
  std::string_view name;
  int64_t hidden = 0;       // E
  int64_t mlp = 0;          // F_local
  int64_t query_heads = 0;  // Hq_local
  int64_t kv_heads = 0;     // Hkv_local
  int64_t vocab = 0;        // V_local
  int64_t layers = 0;       // L
  int64_t head_size = 128;  // D

  int64_t group() const { return query_heads / kv_heads; }                               // G
  int64_t qkv_width() const { return (query_heads + 2 * kv_heads) * head_size; }
};

// Llama 2 7B, 13B, 70B, and 70B over 8 tensor shards.
std::span<const ModelShape> known_model_shapes();
std::vector<std::string> known_model_names();
// The shapes of these names, each of which must be known.
std::vector<ModelShape> model_shapes(std::span<const std::string> names);

}  // namespace accrete::launch
