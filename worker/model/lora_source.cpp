#include "worker/model/lora_source.h"

#include <algorithm>
#include <filesystem>
#include <span>
#include <vector>

#include "worker/model/model_error.h"
#include "worker/model/safetensors.h"
#include "worker/model/sha256.h"

namespace accrete::worker {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLargestConfig = 1 << 20;
constexpr int64_t kScratchFloats = 1 << 18;  // rows are merged in groups of about a megabyte
constexpr std::string_view kOutput = "lm_head.weight";
constexpr std::string_view kEmbedding = "model.embed_tokens.weight";
constexpr std::string_view kPrefix = "base_model.model.";

JsonObject read_adapter_config(const std::string& directory) {
  if (!fs::is_directory(directory)) model_error("{}: no such adapter directory", directory);
  const fs::path path = fs::path(directory) / "adapter_config.json";
  if (!fs::exists(path)) model_error("{}: no adapter_config.json; --adapter needs a PEFT directory", directory);
  return JsonObject::read(path.string(), kLargestConfig);
}

FileBytes open_weights(const std::string& directory) {
  const fs::path path(directory);
  if (!fs::exists(path / "adapter_model.safetensors") && fs::exists(path / "adapter_model.bin")) {
    model_error("{}: weights stand in adapter_model.bin, which is not read; save the adapter as safetensors",
                directory);
  }
  return FileBytes::map((path / "adapter_model.safetensors").string());
}

bool remove_end(std::string& text, std::string_view end) {
  if (!text.ends_with(end)) return false;
  text.resize(text.size() - end.size());
  return true;
}

// dst[rows, columns] += scale * b[rows, r] a[r, columns]
void add_product(const std::vector<float>& b, const std::vector<float>& a, float scale, std::span<float> dst,
                 int64_t rows) {
  const int64_t columns = static_cast<int64_t>(dst.size()) / rows;
  const int64_t rank = static_cast<int64_t>(b.size()) / rows;
  std::vector<float> delta(static_cast<size_t>(columns));
  for (int64_t row = 0; row < rows; ++row) {
    std::fill(delta.begin(), delta.end(), 0.0f);
    for (int64_t k = 0; k < rank; ++k) {
      const float weight = b[row * rank + k];
      const float* direction = a.data() + k * columns;
      for (int64_t j = 0; j < columns; ++j) delta[j] += weight * direction[j];
    }
    float* out = dst.data() + row * columns;
    for (int64_t j = 0; j < columns; ++j) out[j] += scale * delta[j];
  }
}

std::vector<float> read_floats(const StoredTensor& tensor, const Slice& slice) {
  std::vector<float> values(static_cast<size_t>(slice.rows() * slice.columns()));
  read_slice(tensor, slice, DType::f32, values.data());
  return values;
}

}  // namespace

LoraSource::LoraSource(std::unique_ptr<TensorSource> base, const std::string& directory)
    : base_(std::move(base)),
      lora_(parse_lora_config(read_adapter_config(directory))),
      file_(open_weights(directory)),
      config_(base_->config()) {
  if (lora_.dmc) config_.dmc = lora_.dmc;
  const SafetensorsTable table = parse_safetensors(file_);
  const StoredTensors tensors = float_tensors(table, file_);
  for (const auto& [name, entry] : table) {
    if (!tensors.contains(name)) {
      model_error("{}: tensor {} is no float matrix or vector ({})", file_.name(), in_quotes(name),
                  in_quotes(entry.dtype));
    }
  }
  sort_tensors(tensors);
  for (auto& [name, pair] : pairs_) check_pair(name, pair);
  check_targets();
  untie_output();
}

// "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" is half of a pair; without lora_A or lora_B a tensor
// stands in for the base's.
void LoraSource::sort_tensors(const StoredTensors& tensors) {
  for (const auto& [full_name, tensor] : tensors) {
    std::string name = full_name;
    if (!name.starts_with(kPrefix)) {
      model_error("{}: tensor {} does not begin with {}", file_.name(), in_quotes(full_name), kPrefix);
    }
    name.erase(0, kPrefix.size());
    if (name.find("lora_embedding_") != std::string::npos || name.find("lora_magnitude_vector") != std::string::npos) {
      model_error("{}: tensor {}: LoRA of embeddings and DoRA are not supported", file_.name(), in_quotes(full_name));
    }
    remove_end(name, ".weight");
    remove_end(name, ".default");
    const bool is_a = remove_end(name, ".lora_A"), is_b = !is_a && remove_end(name, ".lora_B");
    if (!is_a && !is_b) {
      remove_end(name, ".modules_to_save");
      add_replacement(name + ".weight", tensor);
      continue;
    }
    Pair& pair = pairs_[name + ".weight"];
    StoredTensor& half = is_a ? pair.a : pair.b;
    if (half.file != nullptr) model_error("{}: tensor {} stands twice", file_.name(), in_quotes(full_name));
    half = tensor;
  }
  if (pairs_.empty() && replacements_.empty()) model_error("{}: no tensors", file_.name());
}

void LoraSource::add_replacement(const std::string& name, const StoredTensor& tensor) {
  const std::string module = name.substr(0, name.rfind('.'));
  const bool listed = std::any_of(lora_.modules_to_save.begin(), lora_.modules_to_save.end(),
                                  [&](const std::string& saved) { return names_module(saved, module); });
  if (!listed) {
    model_error("{}: tensor {} is neither a LoRA matrix nor among modules_to_save", file_.name(), in_quotes(name));
  }
  const bool tied_output = name == kOutput && config_.tied_embeddings;
  const std::string_view base = tied_output ? kEmbedding : std::string_view(name);
  if (!base_->has(base)) model_error("{}: the model has no tensor {} to replace", file_.name(), in_quotes(name));
  const auto [rows, columns] = base_->shape(base);
  if (tensor.rows != rows || tensor.columns != columns) {
    model_error("{}: tensor {} is [{}, {}], the model's [{}, {}]", file_.name(), in_quotes(name), tensor.rows,
                tensor.columns, rows, columns);
  }
  if (!replacements_.emplace(name, tensor).second)
    model_error("{}: tensor {} stands twice", file_.name(), in_quotes(name));
}

void LoraSource::check_pair(const std::string& name, Pair& pair) const {
  const std::string module = name.substr(0, name.rfind('.'));
  const bool tied_output = name == kOutput && config_.tied_embeddings;
  const std::string_view base = tied_output ? kEmbedding : std::string_view(name);
  if (!base_->has(base) || name == kEmbedding || name.ends_with("norm.weight")) {
    model_error("{}: {} is no linear layer of the model", file_.name(), in_quotes(module));
  }
  if (replacements_.contains(name)) {
    model_error("{}: {} has LoRA matrices and is among modules_to_save", file_.name(), in_quotes(module));
  }
  const std::pair<int64_t, int64_t> shape = base_->shape(base);
  const int64_t rank = rank_of(lora_, module);
  const auto check = [&](const StoredTensor& half, const char* which, int64_t rows, int64_t columns) {
    if (half.file == nullptr) model_error("{}: {}: {} is missing", file_.name(), in_quotes(module), which);
    if (half.rows == rows && half.columns == columns) return;
    model_error("{}: {}: {} is [{}, {}], rank {} of a [{}, {}] layer needs [{}, {}]", file_.name(), in_quotes(module),
                which, half.rows, half.columns, rank, shape.first, shape.second, rows, columns);
  };
  check(pair.a, "lora_A", rank, shape.second);
  check(pair.b, "lora_B", shape.first, rank);
  pair.scale = static_cast<float>(scale_of(lora_, module));
}

// What the config targets and what the file holds must be the same modules.
void LoraSource::check_targets() const {
  if (lora_.target_modules.empty()) return;
  for (const std::string& target : lora_.target_modules) {
    const bool found = std::any_of(pairs_.begin(), pairs_.end(), [&](const auto& entry) {
      return names_module(target, std::string_view(entry.first).substr(0, entry.first.rfind('.')));
    });
    if (!found)
      model_error("{}: target_modules names {}, of which there is no tensor", file_.name(), in_quotes(target));
  }
  for (const auto& [name, pair] : pairs_) {
    const std::string_view module = std::string_view(name).substr(0, name.rfind('.'));
    const bool listed = std::any_of(lora_.target_modules.begin(), lora_.target_modules.end(),
                                    [&](const std::string& target) { return names_module(target, module); });
    if (!listed) model_error("{}: {} is not among target_modules", file_.name(), in_quotes(module));
  }
}

// An adapter of the output layer alone ends its sharing of the embedding table.
void LoraSource::untie_output() {
  if (!config_.tied_embeddings || !(pairs_.contains(kOutput) || replacements_.contains(kOutput))) return;
  config_.tied_embeddings = false;
  output_from_embedding_ = true;
}

std::string_view LoraSource::base_name(std::string_view name) const {
  return output_from_embedding_ && name == kOutput ? kEmbedding : name;
}

void LoraSource::read(std::string_view name, const Slice& slice, DType dtype, void* dst) const {
  const auto replacement = replacements_.find(name);
  if (replacement != replacements_.end()) return read_slice(replacement->second, slice, dtype, dst);
  const auto found = pairs_.find(name);
  if (found == pairs_.end() || slice.rows() == 0 || slice.columns() == 0) {
    return base_->read(base_name(name), slice, dtype, dst);
  }
  const Pair& pair = found->second;
  const std::vector<float> a = read_floats(pair.a, {0, pair.a.rows, slice.column_begin, slice.column_end});
  const int64_t group = std::max<int64_t>(1, kScratchFloats / slice.columns());
  std::vector<float> merged;
  auto* out = static_cast<uint8_t*>(dst);
  for (int64_t begin = slice.row_begin; begin < slice.row_end; begin += group) {
    const int64_t end = std::min(begin + group, slice.row_end);
    merged.resize(static_cast<size_t>((end - begin) * slice.columns()));
    base_->read(base_name(name), {begin, end, slice.column_begin, slice.column_end}, DType::f32, merged.data());
    add_product(read_floats(pair.b, {begin, end, 0, pair.b.columns}), a, pair.scale, merged, end - begin);
    store_floats(merged.data(), static_cast<int64_t>(merged.size()), dtype, out);
    out += merged.size() * size_of(dtype);
  }
}

std::string LoraSource::hash() const {
  Sha256 hash;
  hash.add("lora");
  hash.add(base_->hash());
  add_config(hash, config_);
  for (const auto& [name, pair] : pairs_) hash.add(double{pair.scale});
  add_tensors(hash, float_tensors(parse_safetensors(file_), file_));
  return hash.hex();
}

std::string LoraSource::describe() const {
  return fmt::format("{}, with a LoRA of {} layers and {} replaced tensors", base_->describe(), pairs_.size(),
                     replacements_.size());
}

}  // namespace accrete::worker
