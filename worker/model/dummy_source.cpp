#include "worker/model/dummy_source.h"

#include <algorithm>
#include <array>

#include "kernels/check.h"
#include "kernels/dummy/dummy_values.h"
#include "worker/model/encoding.h"
#include "worker/model/hf_source.h"
#include "worker/model/hf_tokenizer.h"
#include "worker/model/model_error.h"
#include "worker/model/network_tensors.h"
#include "worker/model/sha256.h"

namespace accrete::worker {
namespace {

struct NamedShape {
  const char* name;
  int64_t hidden, mlp, layers, query_heads, kv_heads, vocab, max_position;
  double rope_theta = 10000.0;
};
constexpr NamedShape kNamedShapes[] = {
    {"llama-2-7b", 4096, 11008, 32, 32, 32, 32000, 4096},
    {"llama-2-13b", 5120, 13824, 40, 40, 40, 32000, 4096},
    {"llama-2-70b", 8192, 28672, 80, 64, 8, 32000, 4096},
    {"llama-3-8b", 4096, 14336, 32, 32, 8, 128256, 131072, 500000.0},
    {"llama-3-70b", 8192, 28672, 80, 64, 8, 128256, 131072, 500000.0},
    {"tiny", 256, 512, 2, 4, 2, 512, 2048},
};

constexpr int64_t kChunk = 2048;

uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return hash;
}

bool is_norm(std::string_view name) { return name.ends_with("norm.weight"); }

// Columns [begin, begin + count) of the row with this key.
void fill(uint64_t row_key, int64_t begin, int64_t count, float* dst) {
  for (int64_t i = 0; i < count; ++i) dst[i] = dummy_value(row_key, static_cast<uint32_t>(begin + i));
}

}  // namespace

ModelConfig dummy_config(const std::string& name) {
  std::string known;
  for (const NamedShape& shape : kNamedShapes) {
    known += fmt::format("{}{}", known.empty() ? "" : ", ", shape.name);
    if (name != shape.name) continue;
    ModelConfig config;
    config.hidden = shape.hidden;
    config.mlp = shape.mlp;
    config.layers = shape.layers;
    config.query_heads = shape.query_heads;
    config.kv_heads = shape.kv_heads;
    config.head_size = shape.hidden / shape.query_heads;
    config.vocab = shape.vocab;
    config.max_position = shape.max_position;
    config.rope_theta = shape.rope_theta;
    config.bos_token_id = 1;
    config.eos_token_ids = {2};
    return config;
  }
  model_error("{}: neither a directory with a config.json nor a known shape for dummy weights ({})", in_quotes(name),
              known);
}

DummySource::DummySource(ModelConfig config, std::string name, uint64_t seed)
    : config_(std::move(config)), name_(std::move(name)), seed_(seed) {
  list_tensors();
}

DummySource::DummySource(const std::string& directory, uint64_t seed)
    : name_(directory), directory_(directory), seed_(seed) {
  auto [config, defaults] = read_directory_config(directory);
  config_ = std::move(config);
  defaults_ = std::move(defaults);
  list_tensors();
}

void DummySource::list_tensors() {
  validate(config_, name_);
  visit_tensors(config_, [&](const std::string& name, int64_t rows, int64_t columns) {
    shapes_.emplace(name, std::pair(rows, columns));
  });
}

uint64_t DummySource::tensor_key(std::string_view name) const { return mix64(seed_) ^ hash_name(name); }

std::optional<uint64_t> DummySource::dummy_key(std::string_view name) const {
  if (is_norm(name)) return std::nullopt;
  return tensor_key(name);
}

std::pair<int64_t, int64_t> DummySource::shape(std::string_view name) const {
  const auto it = shapes_.find(name);
  if (it == shapes_.end()) model_error("{}: no tensor {}", name_, in_quotes(name));
  return it->second;
}

void DummySource::read(std::string_view name, const Slice& slice, DType dtype, void* dst) const {
  const auto [rows, columns] = shape(name);
  CHECK(0 <= slice.row_begin && slice.row_begin <= slice.row_end && slice.row_end <= rows, slice.row_end, rows);
  CHECK(0 <= slice.column_begin && slice.column_begin <= slice.column_end && slice.column_end <= columns,
        slice.column_end, columns);
  const bool norm = is_norm(name);
  const uint64_t key = tensor_key(name);
  alignas(64) std::array<float, kChunk> chunk;
  if (norm) chunk.fill(1.0f);
  auto* out = static_cast<uint8_t*>(dst);
  for (int64_t row = slice.row_begin; row < slice.row_end; ++row) {
    const uint64_t row_key = dummy_row_key(key, row);
    for (int64_t done = 0; done < slice.columns(); done += kChunk) {
      const int64_t count = std::min(kChunk, slice.columns() - done);
      if (!norm) fill(row_key, slice.column_begin + done, count, chunk.data());
      store_floats(chunk.data(), count, dtype, out);
      out += static_cast<size_t>(count) * size_of(dtype);
    }
  }
}

rpc::TokenizerSpec DummySource::tokenizer() const {
  return directory_.empty() ? rpc::TokenizerSpec() : read_hf_tokenizer(directory_);
}

std::string DummySource::hash() const {
  Sha256 hash;
  hash.add("dummy");
  add_config(hash, config_);
  hash.add(static_cast<int64_t>(seed_));
  return hash.hex();
}

std::string DummySource::describe() const {
  return fmt::format("dummy weights (random, seed {}) of shape {}, {} tensors", seed_, name_, shapes_.size());
}

}  // namespace accrete::worker
