// LoraSource: another source with a PEFT LoRA adapter merged into each slice as it is read: W + scale * B A, in fp32.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "worker/model/lora_config.h"
#include "worker/model/stored_tensor.h"

namespace accrete::worker {

class LoraSource : public TensorSource {
 public:
  // Opens adapter_config.json and adapter_model.safetensors in `directory`. Throws ModelError, also when the adapter
  // names tensors that `base` lacks or does not fit them.
  LoraSource(std::unique_ptr<TensorSource> base, const std::string& directory);

  const ModelConfig& config() const override { return config_; }
  std::pair<int64_t, int64_t> shape(std::string_view name) const override { return base_->shape(base_name(name)); }
  bool has(std::string_view name) const override { return base_->has(base_name(name)); }
  void read(std::string_view name, const Slice& slice, DType dtype, void* dst) const override;
  rpc::TokenizerSpec tokenizer() const override { return base_->tokenizer(); }
  rpc::GenerationDefaults generation_defaults() const override { return base_->generation_defaults(); }
  std::string hash() const override;
  std::string describe() const override;
  int64_t bytes_on_disk() const override { return base_->bytes_on_disk() + file_.size(); }

 private:
  struct Pair {      // of one weight [rows, columns]
    StoredTensor a;  // [r, columns]
    StoredTensor b;  // [rows, r]
    float scale = 0.0f;
  };

  std::string_view base_name(std::string_view name) const;
  void sort_tensors(const StoredTensors& tensors);
  void add_replacement(const std::string& name, const StoredTensor& tensor);
  void check_pair(const std::string& name, Pair& pair) const;
  void check_targets() const;
  void untie_output();

  std::unique_ptr<TensorSource> base_;
  LoraConfig lora_;
  FileBytes file_;
  ModelConfig config_;
  std::map<std::string, Pair, std::less<>> pairs_;  // by the weight's name
  StoredTensors replacements_;                      // modules_to_save
  bool output_from_embedding_ = false;  // the base ties its output layer, the adapter gives it weights of its own
};

}  // namespace accrete::worker
