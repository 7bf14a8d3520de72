// GgufSource: a GGUF file of the llama architecture, spoken to by Hugging Face names and in Hugging Face's row order.
#pragma once

#include <memory>
#include <string>

#include "worker/model/gguf_file.h"
#include "worker/model/stored_tensor.h"

namespace accrete::worker {

class GgufSource : public TensorSource {
 public:
  // Checks every tensor against the metadata. Throws ModelError.
  explicit GgufSource(FileBytes file);

  const ModelConfig& config() const override { return config_; }
  std::pair<int64_t, int64_t> shape(std::string_view name) const override;
  bool has(std::string_view name) const override { return tensors_.contains(name); }
  void read(std::string_view name, const Slice& slice, DType dtype, void* dst) const override;
  rpc::TokenizerSpec tokenizer() const override;
  std::string hash() const override;
  std::string describe() const override;
  int64_t bytes_on_disk() const override { return file_.size(); }

 private:
  FileBytes file_;
  GgufFile table_;  // borrows file_
  ModelConfig config_;
  StoredTensors tensors_;
};

}  // namespace accrete::worker
