// DummySource: a Llama of a given shape with made-up weights, for benchmarks and tests that need no download.
#pragma once

#include <map>
#include <string>

#include "worker/model/tensor_source.h"

namespace accrete::worker {

// Norms are 1; every other weight is drawn from a bell curve with deviation 0.02 by a counter-based generator keyed by
// (seed, tensor name, row, column): any two slices agree where they overlap.
class DummySource : public TensorSource {
 public:
  DummySource(ModelConfig config, std::string name, uint64_t seed);
  // With the tokenizer and generation defaults of a directory that has them.
  DummySource(const std::string& directory, uint64_t seed);

  const ModelConfig& config() const override { return config_; }
  std::pair<int64_t, int64_t> shape(std::string_view name) const override;
  bool has(std::string_view name) const override { return shapes_.contains(name); }
  void read(std::string_view name, const Slice& slice, DType dtype, void* dst) const override;
  std::optional<uint64_t> dummy_key(std::string_view name) const override;
  rpc::TokenizerSpec tokenizer() const override;
  rpc::GenerationDefaults generation_defaults() const override { return defaults_; }
  std::string hash() const override;
  std::string describe() const override;
  int64_t bytes_on_disk() const override { return 0; }

 private:
  void list_tensors();
  uint64_t tensor_key(std::string_view name) const;

  ModelConfig config_;
  rpc::GenerationDefaults defaults_;
  std::string name_, directory_;
  uint64_t seed_;
  std::map<std::string, std::pair<int64_t, int64_t>, std::less<>> shapes_;
};

// The config of a shape by its name: llama-2-7b, llama-2-13b, llama-2-70b, llama-3-8b, llama-3-70b, tiny. Throws ModelError listing them.
ModelConfig dummy_config(const std::string& name);

}  // namespace accrete::worker
