// TensorSource: an opened checkpoint, read slice by slice. Implementations: safetensors directory, GGUF file, LoRA over either,
// dummy weights. All speak Hugging Face tensor names and row order, so the shard loader knows one layout only.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

#include "kernels/dtype.h"
#include "net/proto/accrete.pb.h"
#include "worker/model/model_config.h"

namespace accrete::worker {

// A model file that is missing, truncated, hostile or unfit. The message names the file and the field or tensor.
struct ModelError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Rows [row_begin, row_end) and columns [column_begin, column_end) of a 2-D tensor; a vector is one row.
struct Slice {
  int64_t row_begin = 0, row_end = 0;
  int64_t column_begin = 0, column_end = 0;
  int64_t rows() const { return row_end - row_begin; }
  int64_t columns() const { return column_end - column_begin; }
};

class TensorSource {
 public:
  virtual ~TensorSource() = default;

  virtual const ModelConfig& config() const = 0;
  // [rows, columns] of a tensor by its Hugging Face name ("model.layers.0.self_attn.q_proj.weight"); a vector is [1, n].
  // Throws ModelError when there is none.
  virtual std::pair<int64_t, int64_t> shape(std::string_view name) const = 0;
  virtual bool has(std::string_view name) const = 0;
  // Converts the slice to `dtype` (f32 or bf16) into dst, rows contiguous: dst holds slice.rows() * slice.columns().
  // Touches only the slice's bytes of the file. Thread-safe.
  virtual void read(std::string_view name, const Slice& slice, DType dtype, void* dst) const = 0;

  // The key by which a device makes the tensor's values itself (kernels/dummy/dummy_values.h), equal to what read gives; nothing when they
  // have to be read.
  virtual std::optional<uint64_t> dummy_key(std::string_view) const { return std::nullopt; }

  // Tokenizer, chat template and special tokens found with the model. kind unset when there are none (dummy weights).
  virtual rpc::TokenizerSpec tokenizer() const = 0;
  virtual rpc::GenerationDefaults generation_defaults() const { return {}; }
  // SHA-256, hex, over the config, the table of tensors (names, types, shapes, file sizes) and a few bytes of each: equal
  // models agree.
  virtual std::string hash() const = 0;
  virtual std::string describe() const = 0;  // "GGUF Q4_1, 272 tensors, 98 MB", for people
  virtual int64_t bytes_on_disk() const = 0;
};

struct OpenOptions {
  std::string load_format = "auto";  // auto | gguf | dummy
  std::string adapter;               // PEFT directory, merged while reading; empty: none
  uint64_t seed = 0;                 // dummy weights
};

// Opens `model`: a Hugging Face directory, a .gguf file, or with load_format "dummy" a shape's name (llama-2-7b, llama-2-13b,
// llama-2-70b, llama-3-8b, llama-3-70b, tiny) or a directory whose config.json alone is read. Throws ModelError.
std::unique_ptr<TensorSource> open_model(const std::string& model, const OpenOptions& options);

}  // namespace accrete::worker
