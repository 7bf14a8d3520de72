// SeededSource: a Llama of any shape whose weights are drawn by a hash of (tensor name, index), the same as
// make_hf_golden.py draws. Every value has at most eight significant bits, so that f32 and bf16 hold the same numbers.
#pragma once

#include <functional>
#include <map>
#include <string>

#include "worker/model/tensor_source.h"

namespace accrete::worker {

// The 64-bit draw of (name, index), before it becomes a weight.
uint64_t seeded_bits(std::string_view name, int64_t index);

class SeededSource : public TensorSource {
 public:
  explicit SeededSource(const ModelConfig& config);

  // Rows for which this says so are zero.
  std::function<bool(std::string_view name, int64_t row)> zero_row;

  const ModelConfig& config() const override { return config_; }
  std::pair<int64_t, int64_t> shape(std::string_view name) const override { return shapes_.find(name)->second; }
  bool has(std::string_view name) const override { return shapes_.contains(name); }
  void read(std::string_view name, const Slice& slice, DType dtype, void* dst) const override;
  rpc::TokenizerSpec tokenizer() const override { return {}; }
  std::string hash() const override { return "seeded"; }
  std::string describe() const override { return "seeded weights"; }
  int64_t bytes_on_disk() const override { return 0; }

  void forget(const std::string& name) { shapes_.erase(name); }
  void reshape(const std::string& name, std::pair<int64_t, int64_t> shape) { shapes_[name] = shape; }

 private:
  ModelConfig config_;
  std::map<std::string, std::pair<int64_t, int64_t>, std::less<>> shapes_;
};

// A small config: head size 64, vocabulary 96, no DMC.
ModelConfig small_config(int64_t layers, int64_t query_heads, int64_t kv_heads);
// n token ids below `vocab`, drawn by `name`.
std::vector<int32_t> seeded_prompt(std::string_view name, int64_t n, int64_t vocab);

}  // namespace accrete::worker
