// HfSource: a Hugging Face directory: config.json, safetensors (one file, or several with an index), tokenizer files.
#pragma once

#include <string>
#include <vector>

#include "worker/model/stored_tensor.h"

namespace accrete::worker {

class HfSource : public TensorSource {
 public:
  // Maps every weight file and checks each tensor against the config. Throws ModelError.
  explicit HfSource(const std::string& directory);

  const ModelConfig& config() const override { return config_; }
  std::pair<int64_t, int64_t> shape(std::string_view name) const override;
  bool has(std::string_view name) const override { return tensors_.contains(name); }
  void read(std::string_view name, const Slice& slice, DType dtype, void* dst) const override;
  rpc::TokenizerSpec tokenizer() const override;
  rpc::GenerationDefaults generation_defaults() const override { return defaults_; }
  std::string hash() const override;
  std::string describe() const override;
  int64_t bytes_on_disk() const override;

 private:
  std::string directory_;
  ModelConfig config_;
  rpc::GenerationDefaults defaults_;
  std::vector<FileBytes> files_;  // never resized after construction: tensors_ points into it
  StoredTensors tensors_;
};

struct DirectoryConfig {
  ModelConfig config;
  rpc::GenerationDefaults defaults;
};
// config.json, and generation_config.json where there is one.
DirectoryConfig read_directory_config(const std::string& directory);

}  // namespace accrete::worker
