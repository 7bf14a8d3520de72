#include "tests/worker/model/model_files.h"

#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <cstring>
#include <fstream>

#include "worker/model/hf_config.h"
#include "worker/model/network_tensors.h"

namespace accrete::worker::testing {
namespace {

std::string length_and_text(std::string_view text) {
  return bytes_of<uint64_t>(text.size()) + std::string(text);
}

std::string bytes_of_bfloats(const std::vector<float>& values) {
  std::string bytes;
  for (const float value : values) bytes += bytes_of(bf16(value));
  return bytes;
}

std::string gguf_name(std::string name) {
  constexpr const char* kNames[][2] = {
      {"model.embed_tokens.weight", "token_embd.weight"},
      {"model.norm.weight", "output_norm.weight"},
      {"lm_head.weight", "output.weight"},
      {"input_layernorm", "attn_norm"},
      {"self_attn.q_proj", "attn_q"},
      {"self_attn.k_proj", "attn_k"},
      {"self_attn.v_proj", "attn_v"},
      {"self_attn.o_proj", "attn_output"},
      {"post_attention_layernorm", "ffn_norm"},
      {"mlp.gate_proj", "ffn_gate"},
      {"mlp.up_proj", "ffn_up"},
      {"mlp.down_proj", "ffn_down"},
      {"model.layers.", "blk."},
  };
  for (const auto& [hf, gguf] : kNames) {
    const size_t at = name.find(hf);
    if (at != std::string::npos) name.replace(at, std::strlen(hf), gguf);
  }
  return name;
}

// llama.cpp's conversion: view the rows as [heads, 2, D/2] and swap the last two.
std::vector<float> pair_rows(const std::vector<float>& values, int64_t head_size, int64_t columns) {
  std::vector<float> paired(values.size());
  const auto rows = static_cast<int64_t>(values.size()) / columns;
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t head = row / head_size, half = row % head_size / (head_size / 2), i = row % (head_size / 2);
    const int64_t target = head * head_size + i * 2 + half;
    for (int64_t column = 0; column < columns; ++column) {
      paired[static_cast<size_t>(target * columns + column)] = values[static_cast<size_t>(row * columns + column)];
    }
  }
  return paired;
}

}  // namespace

TempDir::TempDir() {
  static std::atomic<int> counter{0};
  path_ = std::filesystem::temp_directory_path() / fmt::format("accrete-model-{}-{}", ::getpid(), counter++);
  std::filesystem::create_directories(path_);
}

TempDir::~TempDir() {
  std::error_code ignored;
  std::filesystem::remove_all(path_, ignored);
}

std::string TempDir::write(const std::string& name, std::string_view content) const {
  const std::string path = (path_ / name).string();
  std::ofstream file(path, std::ios::binary);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  return path;
}

std::string bytes_of_floats(const std::vector<float>& values) {
  return std::string(reinterpret_cast<const char*>(values.data()), values.size() * sizeof(float));
}

TestTensor f32_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& values) {
  return {std::move(name), "F32", std::move(shape), bytes_of_floats(values)};
}

TestTensor bf16_tensor(std::string name, std::vector<int64_t> shape, const std::vector<float>& values) {
  return {std::move(name), "BF16", std::move(shape), bytes_of_bfloats(values)};
}

std::string safetensors_raw(std::string_view header, std::string_view data) {
  return length_and_text(header) + std::string(data);
}

std::string safetensors_file(const std::vector<TestTensor>& tensors) {
  std::string header = R"({"__metadata__":{"format":"pt"})", data;
  for (const TestTensor& tensor : tensors) {
    header += fmt::format(R"(,"{}":{{"dtype":"{}","shape":[{}],"data_offsets":[{},{}]}})", tensor.name, tensor.dtype,
                          fmt::join(tensor.shape, ","), data.size(), data.size() + tensor.data.size());
    data += tensor.data;
  }
  return safetensors_raw(header + "}", data);
}

GgufBuilder& GgufBuilder::raw(std::string_view key, std::string_view value) {
  metadata_ += length_and_text(key) + std::string(value);
  ++values_;
  return *this;
}

GgufBuilder& GgufBuilder::text(std::string_view key, std::string_view value) {
  return raw(key, bytes_of<uint32_t>(8) + length_and_text(value));
}

GgufBuilder& GgufBuilder::u32(std::string_view key, uint32_t value) {
  return raw(key, bytes_of<uint32_t>(4) + bytes_of(value));
}

GgufBuilder& GgufBuilder::f32(std::string_view key, float value) {
  return raw(key, bytes_of<uint32_t>(6) + bytes_of(value));
}

GgufBuilder& GgufBuilder::boolean(std::string_view key, bool value) {
  return raw(key, bytes_of<uint32_t>(7) + bytes_of(static_cast<uint8_t>(value)));
}

GgufBuilder& GgufBuilder::texts(std::string_view key, const std::vector<std::string>& values) {
  std::string bytes = bytes_of<uint32_t>(9) + bytes_of<uint32_t>(8) + bytes_of<uint64_t>(values.size());
  for (const std::string& value : values) bytes += length_and_text(value);
  return raw(key, bytes);
}

GgufBuilder& GgufBuilder::floats(std::string_view key, const std::vector<float>& values) {
  return raw(
      key, bytes_of<uint32_t>(9) + bytes_of<uint32_t>(6) + bytes_of<uint64_t>(values.size()) + bytes_of_floats(values));
}

GgufBuilder& GgufBuilder::i32s(std::string_view key, const std::vector<int32_t>& values) {
  std::string bytes = bytes_of<uint32_t>(9) + bytes_of<uint32_t>(5) + bytes_of<uint64_t>(values.size());
  for (const int32_t value : values) bytes += bytes_of(value);
  return raw(key, bytes);
}

GgufBuilder& GgufBuilder::tensor_at(std::string_view name, std::vector<uint64_t> dims, uint32_t type, uint64_t offset) {
  table_ += length_and_text(name) + bytes_of(static_cast<uint32_t>(dims.size()));
  for (const uint64_t dim : dims) table_ += bytes_of(dim);
  table_ += bytes_of(type) + bytes_of(offset);
  ++tensors_;
  return *this;
}

GgufBuilder& GgufBuilder::tensor(std::string_view name, std::vector<uint64_t> dims, uint32_t type,
                                 std::string_view data) {
  data_.resize((data_.size() + alignment - 1) / alignment * alignment);
  tensor_at(name, std::move(dims), type, data_.size());
  data_ += data;
  return *this;
}

std::string GgufBuilder::build() const {
  std::string file = "GGUF" + bytes_of(version) + bytes_of(tensors_) + bytes_of(values_) + metadata_ + table_;
  file.resize((file.size() + alignment - 1) / alignment * alignment);
  return file + data_;
}

ModelConfig tiny_config() {
  return parse_hf_config(JsonObject(nlohmann::json::parse(kTinyConfig), "config.json"));
}

float tiny_value(std::string_view name, int64_t row, int64_t column) {
  const auto hash = static_cast<int64_t>(std::hash<std::string_view>()(name) % 97);
  return static_cast<float>((hash + 31 * row + 7 * column) % 251 - 125) / 64.0f;
}

std::vector<float> tiny_values(std::string_view name, int64_t rows, int64_t columns) {
  std::vector<float> values;
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t column = 0; column < columns; ++column) values.push_back(tiny_value(name, row, column));
  }
  return values;
}

std::vector<TestTensor> tiny_tensors(const std::string& dtype) {
  std::vector<TestTensor> tensors;
  visit_tensors(tiny_config(), [&](const std::string& name, int64_t rows, int64_t columns) {
    const std::vector<int64_t> shape = rows == 1 ? std::vector{columns} : std::vector{rows, columns};
    const std::vector<float> values = tiny_values(name, rows, columns);
    tensors.push_back(dtype == "F32" ? f32_tensor(name, shape, values) : bf16_tensor(name, shape, values));
  });
  return tensors;
}

void write_tiny_model(const TempDir& directory) {
  directory.write("config.json", kTinyConfig);
  directory.write("model.safetensors", safetensors_file(tiny_tensors("BF16")));
}

GgufBuilder tiny_gguf(bool with_output) {
  const ModelConfig config = tiny_config();
  GgufBuilder file;
  file.text("general.architecture", "llama").u32("llama.block_count", 2).u32("llama.embedding_length", 8);
  file.u32("llama.feed_forward_length", 12)
      .u32("llama.attention.head_count", 4)
      .u32("llama.attention.head_count_kv", 2);
  file.u32("llama.attention.key_length", 6).u32("llama.attention.value_length", 6).u32("llama.rope.dimension_count", 6);
  file.u32("llama.context_length", 64).f32("llama.attention.layer_norm_rms_epsilon", 1e-5f);
  file.f32("llama.rope.freq_base", 500.0f);
  visit_tensors(config, [&](const std::string& name, int64_t rows, int64_t columns) {
    if (name == "lm_head.weight" && !with_output) return;
    std::vector<float> values = tiny_values(name, rows, columns);
    if (name.find("q_proj") != std::string::npos || name.find("k_proj") != std::string::npos) {
      values = pair_rows(values, config.head_size, columns);
    }
    std::vector<uint64_t> dims{static_cast<uint64_t>(columns)};
    if (rows > 1) dims.push_back(static_cast<uint64_t>(rows));
    file.tensor(gguf_name(name), dims, 0, bytes_of_floats(values));
  });
  return file;
}

std::vector<float> read_all(const TensorSource& source, std::string_view name) {
  const auto [rows, columns] = source.shape(name);
  std::vector<float> values(static_cast<size_t>(rows * columns));
  source.read(name, {0, rows, 0, columns}, DType::f32, values.data());
  return values;
}

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const ModelError& error) {
    return error.what();
  }
  ADD_FAILURE() << "no ModelError was thrown";
  return "";
}

}  // namespace accrete::worker::testing
