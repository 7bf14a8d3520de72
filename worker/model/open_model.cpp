#include <filesystem>
#include <fstream>

#include "worker/model/dummy_source.h"
#include "worker/model/gguf_source.h"
#include "worker/model/hf_source.h"
#include "worker/model/lora_source.h"
#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

namespace fs = std::filesystem;

bool is_gguf(const std::string& path) {
  char magic[4] = {};
  std::ifstream(path, std::ios::binary).read(magic, sizeof(magic));
  return std::string_view(magic, sizeof(magic)) == "GGUF";
}

// "; it holds x.gguf: name the file" when a directory was meant to be one.
std::string gguf_hint(const std::string& directory) {
  std::error_code error;
  for (const auto& entry : fs::directory_iterator(directory, error)) {
    if (entry.path().extension() == ".gguf") return fmt::format("; to load {}, name the file", entry.path().string());
  }
  return "";
}

std::unique_ptr<TensorSource> open_directory(const std::string& path) {
  if (!fs::exists(fs::path(path) / "config.json")) {
    model_error("{}: a directory without config.json{}", path, gguf_hint(path));
  }
  return std::make_unique<HfSource>(path);
}

std::unique_ptr<TensorSource> open_dummy(const std::string& model, uint64_t seed) {
  if (fs::is_directory(model)) return std::make_unique<DummySource>(model, seed);
  return std::make_unique<DummySource>(dummy_config(model), model, seed);
}

std::unique_ptr<TensorSource> open_base(const std::string& model, const OpenOptions& options) {
  const std::string& format = options.load_format;
  if (format != "auto" && format != "gguf" && format != "dummy") {
    model_error("--load-format {}: must be auto, gguf or dummy", in_quotes(format));
  }
  if (model.empty()) model_error("no model was named");
  if (format == "dummy") return open_dummy(model, options.seed);
  std::error_code error;
  const fs::file_status status = fs::status(model, error);
  if (!fs::exists(status)) model_error("{}: no such file or directory", model);
  if (fs::is_directory(status)) {
    if (format == "gguf")
      model_error("{}: --load-format gguf needs a file, this is a directory{}", model, gguf_hint(model));
    return open_directory(model);
  }
  if (format == "auto" && !is_gguf(model)) {
    model_error("{}: neither a Hugging Face directory nor a GGUF file", model);
  }
  return std::make_unique<GgufSource>(FileBytes::map(model));
}

}  // namespace

std::unique_ptr<TensorSource> open_model(const std::string& model, const OpenOptions& options) {
  std::unique_ptr<TensorSource> base = open_base(model, options);
  if (options.adapter.empty()) return base;
  return std::make_unique<LoraSource>(std::move(base), options.adapter);
}

}  // namespace accrete::worker
