// Makes small model files for the tests of the readers: safetensors, GGUF, and a whole tiny Llama in either form.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "worker/model/tensor_source.h"

namespace accrete::worker::testing {

// A directory that is removed with the object.
class TempDir {
 public:
  TempDir();
  ~TempDir();
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;

  std::string path() const { return path_.string(); }
  // Writes a file into it and returns its path.
  std::string write(const std::string& name, std::string_view content) const;

 private:
  std::filesystem::path path_;
};

struct TestTensor {
  std::string name;
  std::string dtype;
  std::vector<int64_t> shape;
  std::string data;
};
TestTensor f32_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& values);
TestTensor bf16_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& values);

// A whole file; or one around any header text.
std::string safetensors_file(const std::vector<TestTensor>& tensors);
std::string safetensors_raw(std::string_view header, std::string_view data);

// A GGUF file piece by piece; `bytes` may be changed before build().
class GgufBuilder {
 public:
  uint32_t version = 3;
  uint64_t alignment = 32;

  GgufBuilder& text(std::string_view key, std::string_view value);
  GgufBuilder& u32(std::string_view key, uint32_t value);
  GgufBuilder& f32(std::string_view key, float value);
  GgufBuilder& boolean(std::string_view key, bool value);
  GgufBuilder& texts(std::string_view key, const std::vector<std::string>& values);
  GgufBuilder& floats(std::string_view key, const std::vector<float>& values);
  GgufBuilder& i32s(std::string_view key, const std::vector<int32_t>& values);
  // Any bytes as a value: its type (4 bytes) and what follows.
  GgufBuilder& raw(std::string_view key, std::string_view value);
  // dims with the fastest first, `type` as in the file.
  GgufBuilder& tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type, std::string_view data);
  // A tensor entry with any offset and no data.
  GgufBuilder& tensor_at(std::string_view name, std::vector<uint64_t> dims, uint32_t type, uint64_t offset);
  std::string build() const;

 private:
  uint64_t values_ = 0, tensors_ = 0;
  std::string metadata_, table_, data_;
};

// Little-endian bytes of one value.
template <class T>
std::string bytes_of(T value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(T));
}
std::string bytes_of_floats(const std::vector<float>& values);

// ---- a tiny Llama: E 8, F 12, L 2, Hq 4, Hkv 2, D 6, V 10 ----

constexpr const char* kTinyConfig =
    R"({"architectures": ["LlamaForCausalLM"], "hidden_size": 8, "intermediate_size": 12,
  "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 6, "vocab_size": 10,
  "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "rope_theta": 500.0, "bos_token_id": 1, "eos_token_id": [2, 3]})";

ModelConfig tiny_config();
// Every element of every tensor, different ones and exact in bf16.
float tiny_value(std::string_view name, int64_t row, int64_t column);
std::vector<float> tiny_values(std::string_view name, int64_t rows, int64_t columns);
std::vector<TestTensor> tiny_tensors(const std::string& dtype);  // F32 or BF16
void write_tiny_model(const TempDir& directory);
// The same weights as llama.cpp would store them: other names, q and k rows in pairs, F32.
GgufBuilder tiny_gguf(bool with_output = true);

// A whole tensor as floats.
std::vector<float> read_all(const TensorSource& source, std::string_view name);
// The message of the ModelError that `body` throws; fails the test and returns "" when it does not.
std::string error_of(const std::function<void()>& body);

}  // namespace accrete::worker::testing
