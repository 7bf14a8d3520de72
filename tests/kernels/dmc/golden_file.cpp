#include "tests/kernels/dmc/golden_file.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>

namespace accrete {
namespace {

using nlohmann::json;

[[noreturn]] void refuse(const std::string& name, const std::string& what) { throw std::runtime_error("golden file " + name + ": " + what); }

int64_t count(const std::vector<int64_t>& shape) {
  int64_t n = 1;
  for (int64_t dim : shape) n *= dim;
  return n;
}

GoldenTensor read_tensor(const json& entry, const std::string& data, const std::string& name) {
  GoldenTensor tensor;
  tensor.shape = entry.at("shape").get<std::vector<int64_t>>();
  const size_t begin = entry.at("data_offsets").at(0), end = entry.at("data_offsets").at(1);
  if (begin > end || end > data.size() || end - begin != static_cast<size_t>(count(tensor.shape)) * 4) refuse(name, "offsets do not fit");
  if (entry.at("dtype") == "F32") {
    tensor.f32.resize(count(tensor.shape));
    std::memcpy(tensor.f32.data(), data.data() + begin, end - begin);
  } else if (entry.at("dtype") == "I32") {
    tensor.i32.resize(count(tensor.shape));
    std::memcpy(tensor.i32.data(), data.data() + begin, end - begin);
  } else {
    refuse(name, "dtype " + entry.at("dtype").dump());
  }
  return tensor;
}

int64_t number(const json& meta, const char* key, const std::string& name) {
  if (!meta.contains(key)) refuse(name, std::string("no metadata ") + key);
  return std::stoll(meta.at(key).get<std::string>());
}

}  // namespace

float GoldenFile::at(const std::string& tensor_name, int64_t t, int64_t b, int64_t h, int64_t d) const {
  const GoldenTensor& found = tensor(tensor_name);
  return found.f32.at(((t * found.shape[1] + b) * found.shape[2] + h) * found.shape[3] + d);
}

const GoldenTensor& GoldenFile::tensor(const std::string& tensor_name) const {
  const auto found = tensors.find(tensor_name);
  if (found == tensors.end()) refuse(name, "no tensor " + tensor_name);
  return found->second;
}

GoldenFile read_golden(const std::filesystem::path& path) {
  GoldenFile file;
  file.name = path.filename().string();
  std::ifstream in(path, std::ios::binary);
  const std::string bytes((std::istreambuf_iterator<char>(in)), {});
  uint64_t size = 0;
  if (bytes.size() < 8) refuse(file.name, "cannot be read or is shorter than its header");
  std::memcpy(&size, bytes.data(), 8);
  if (size > bytes.size() - 8) refuse(file.name, "its header is longer than the file");
  json header = json::parse(bytes.substr(8, size));
  const json meta = header.value("__metadata__", json::object());
  header.erase("__metadata__");
  file.tokens = number(meta, "tokens", file.name);
  file.batch = number(meta, "batch", file.name);
  file.query_heads = number(meta, "query_heads", file.name);
  file.kv_heads = number(meta, "kv_heads", file.name);
  file.head_size = number(meta, "head_dim", file.name);
  file.window = number(meta, "window", file.name);
  file.rope_theta = std::stod(meta.at("rope_theta").get<std::string>());
  if (meta.contains("decision_offset")) file.offset = std::stod(meta.at("decision_offset").get<std::string>());
  const std::string data = bytes.substr(8 + size);
  for (const auto& [name, entry] : header.items()) file.tensors[name] = read_tensor(entry, data, file.name);
  for (const char* name : {"q", "k", "v", "pooled_k", "pooled_v", "attn_out"}) file.tensor(name);
  return file;
}

std::vector<std::filesystem::path> golden_files() {
  const char* chosen = std::getenv("ACCRETE_GOLDEN_DIR");
  const std::filesystem::path folder = chosen ? chosen : ACCRETE_SOURCE_DIR "/tests/golden/dmc";
  std::vector<std::filesystem::path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".safetensors") files.push_back(entry.path());
  }
  if (files.empty()) throw std::runtime_error("no *.safetensors in " + folder.string());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace accrete
