#include "tests/worker/llama/seeded_source.h"

#include <cmath>

#include "worker/model/network_tensors.h"

namespace accrete::worker {

uint64_t seeded_bits(std::string_view name, int64_t index) {
  uint64_t key = 0xCBF29CE484222325u;  // FNV-1a
  for (unsigned char byte : name) key = (key ^ byte) * 0x100000001B3u;
  uint64_t z = key + static_cast<uint64_t>(index + 1) * 0x9E3779B97F4A7C15u;  // splitmix64
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

namespace {

float weight(std::string_view name, int64_t index, int64_t columns) {
  const float value = (2.0f * static_cast<float>(seeded_bits(name, index) >> 56) - 255.0f) / 256.0f;
  if (name.ends_with("norm.weight")) return 1.0f + value / 4;
  if (name.find("embed_tokens") != std::string_view::npos) return value;
  return std::ldexp(value, static_cast<int>(std::floor(std::log2(2 / std::sqrt(static_cast<double>(columns))) + 0.5)));
}

}  // namespace

SeededSource::SeededSource(const ModelConfig& config) : config_(config) {
  visit_tensors(config, [&](const std::string& name, int64_t rows, int64_t columns) {
    shapes_[name] = {rows, columns};
  });
}

void SeededSource::read(std::string_view name, const Slice& slice, DType dtype, void* dst) const {
  const int64_t columns = shape(name).second;
  int64_t next = 0;
  for (int64_t row = slice.row_begin; row < slice.row_end; ++row) {
    const bool zero = zero_row && zero_row(name, row);
    for (int64_t column = slice.column_begin; column < slice.column_end; ++column, ++next) {
      const float value = zero ? 0.0f : weight(name, row * columns + column, columns);
      if (dtype == DType::f32)
        static_cast<float*>(dst)[next] = value;
      else
        static_cast<bf16*>(dst)[next] = bf16(value);
    }
  }
}

ModelConfig small_config(int64_t layers, int64_t query_heads, int64_t kv_heads) {
  ModelConfig config;
  config.hidden = 96;
  config.mlp = 144;
  config.layers = layers;
  config.query_heads = query_heads;
  config.kv_heads = kv_heads;
  config.head_size = 64;
  config.vocab = 96;
  config.max_position = 512;
  return config;
}

std::vector<int32_t> seeded_prompt(std::string_view name, int64_t n, int64_t vocab) {
  std::vector<int32_t> ids;
  for (int64_t i = 0; i < n; ++i)
    ids.push_back(static_cast<int32_t>((seeded_bits(name, i) >> 56) % static_cast<uint64_t>(vocab)));
  return ids;
}

}  // namespace accrete::worker
