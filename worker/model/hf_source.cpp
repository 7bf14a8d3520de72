#include "worker/model/hf_source.h"

#include <filesystem>
#include <set>

#include "worker/model/hf_config.h"
#include "worker/model/hf_tokenizer.h"
#include "worker/model/model_error.h"
#include "worker/model/network_tensors.h"
#include "worker/model/safetensors.h"
#include "worker/model/sha256.h"

namespace accrete::worker {
namespace {

namespace fs = std::filesystem;

constexpr int64_t kLargestConfig = 1 << 20;
constexpr int64_t kLargestIndex = 64 << 20;
constexpr const char* kSingleFile = "model.safetensors";
constexpr const char* kIndexFile = "model.safetensors.index.json";

// A shard's name must be a plain file name: an index is untrusted and may not lead out of its directory.
void check_shard_name(const std::string& where, const std::string& name) {
  const bool plain = !name.empty() && name != "." && name != ".." && name.find('/') == std::string::npos &&
                     name.find('\0') == std::string::npos;
  if (!plain) model_error("{}: weight_map names {}, which is no plain file name", where, in_quotes(name));
}

// tensor name -> file name
std::map<std::string, std::string> read_index(const std::string& path) {
  const JsonObject index = JsonObject::read(path, kLargestIndex);
  const auto weight_map = index.object("weight_map");
  if (!weight_map) model_error("{}: weight_map is missing", path);
  std::map<std::string, std::string> files;
  for (const auto& [tensor, file] : weight_map->value().items()) {
    if (!file.is_string()) model_error("{}: weight_map: {} must be a string", path, in_quotes(tensor));
    check_shard_name(path, file.get_ref<const std::string&>());
    files.emplace(tensor, file.get<std::string>());
  }
  if (files.empty()) model_error("{}: weight_map is empty", path);
  return files;
}

[[noreturn]] void no_weights(const fs::path& directory) {
  for (const char* pickle : {"pytorch_model.bin", "pytorch_model.bin.index.json", "consolidated.00.pth"}) {
    if (fs::exists(directory / pickle)) {
      model_error("{}: weights stand in {}, which is not read; save the model as safetensors", directory.string(),
                  pickle);
    }
  }
  model_error("{}: neither {} nor {} is there", directory.string(), kSingleFile, kIndexFile);
}

void check_biases(const StoredTensors& tensors, const std::string& where) {
  for (const auto& [name, tensor] : tensors) {
    if (name.starts_with("model.layers.") && name.ends_with(".bias")) {
      model_error("{}: tensor {}: layers with biases are not supported", where, in_quotes(name));
    }
  }
}

void check_dtype(const SafetensorsEntry& entry, const std::string& name, const std::string& where) {
  if (entry.dtype == "F32" || entry.dtype == "F16" || entry.dtype == "BF16") return;
  model_error("{}: tensor {} has dtype {}; F32, F16 and BF16 are read", where, name, in_quotes(entry.dtype));
}

struct Weights {
  std::vector<FileBytes> files;
  std::vector<SafetensorsTable> tables;  // one a file
};

Weights open_weights(const fs::path& directory, const std::map<std::string, std::string>& index) {
  std::set<std::string> names;
  for (const auto& [tensor, file] : index) names.insert(file);
  if (index.empty()) names.insert(kSingleFile);
  Weights weights;
  weights.files.reserve(names.size());
  for (const std::string& name : names) {
    weights.files.push_back(FileBytes::map((directory / name).string()));
    weights.tables.push_back(parse_safetensors(weights.files.back()));
  }
  return weights;
}

// Every entry of the index must be in the file that it names.
void check_index(const Weights& weights, const fs::path& directory, const std::map<std::string, std::string>& index) {
  std::map<std::string, const SafetensorsTable*> by_file;
  for (size_t i = 0; i < weights.files.size(); ++i) by_file[weights.files[i].name()] = &weights.tables[i];
  for (const auto& [tensor, file] : index) {
    const std::string path = (directory / file).string();
    if (!by_file.at(path)->contains(tensor)) {
      model_error("{}: tensor {}, which {} places here, is missing", path, in_quotes(tensor), kIndexFile);
    }
  }
}

}  // namespace

DirectoryConfig read_directory_config(const std::string& directory) {
  const fs::path path(directory);
  if (!fs::exists(path / "config.json")) {
    model_error("{}: no config.json; a model is a Hugging Face directory or a .gguf file", directory);
  }
  DirectoryConfig result;
  result.config = parse_hf_config(JsonObject::read((path / "config.json").string(), kLargestConfig));
  const fs::path generation = path / "generation_config.json";
  if (fs::exists(generation)) {
    result.defaults = parse_generation_config(JsonObject::read(generation.string(), kLargestConfig), result.config);
  }
  return result;
}

HfSource::HfSource(const std::string& directory) : directory_(directory) {
  auto [config, defaults] = read_directory_config(directory);
  config_ = std::move(config);
  defaults_ = std::move(defaults);
  const fs::path path(directory);
  std::map<std::string, std::string> index;
  if (!fs::exists(path / kSingleFile)) {
    if (!fs::exists(path / kIndexFile)) no_weights(path);
    index = read_index((path / kIndexFile).string());
  }
  Weights weights = open_weights(path, index);
  check_index(weights, path, index);
  files_ = std::move(weights.files);
  for (size_t i = 0; i < files_.size(); ++i) {
    for (auto& [name, tensor] : float_tensors(weights.tables[i], files_[i])) {
      if (!tensors_.emplace(name, tensor).second) {
        model_error("{}: tensor {} stands in another file too", files_[i].name(), in_quotes(name));
      }
    }
  }
  visit_tensors(config_, [&](const std::string& name, int64_t, int64_t) {
    for (size_t i = 0; i < files_.size(); ++i) {
      const auto entry = weights.tables[i].find(name);
      if (entry != weights.tables[i].end()) check_dtype(entry->second, name, files_[i].name());
    }
  });
  if (config_.tied_embeddings) tensors_.erase("lm_head.weight");
  check_biases(tensors_, directory);
  check_tensors(*this, directory);
}

std::pair<int64_t, int64_t> HfSource::shape(std::string_view name) const {
  const StoredTensor& tensor = find_tensor(tensors_, name, directory_);
  return {tensor.rows, tensor.columns};
}

void HfSource::read(std::string_view name, const Slice& slice, DType dtype, void* dst) const {
  read_slice(find_tensor(tensors_, name, directory_), slice, dtype, dst);
}

rpc::TokenizerSpec HfSource::tokenizer() const {
  return read_hf_tokenizer(directory_);
}

std::string HfSource::hash() const {
  Sha256 hash;
  hash.add("safetensors");
  add_config(hash, config_);
  add_tensors(hash, tensors_);
  return hash.hex();
}

std::string HfSource::describe() const {
  return "safetensors " + describe_tensors(tensors_);
}

int64_t HfSource::bytes_on_disk() const {
  int64_t total = 0;
  for (const FileBytes& file : files_) total += file.size();
  return total;
}

}  // namespace accrete::worker
