#include "worker/model/gguf_source.h"

#include "worker/model/gguf_metadata.h"
#include "worker/model/model_error.h"
#include "worker/model/network_tensors.h"
#include "worker/model/sha256.h"

namespace accrete::worker {
namespace {

struct NamePair {
  std::string_view gguf, hf;
};
constexpr NamePair kOutside[] = {
    {"token_embd.weight", "model.embed_tokens.weight"},
    {"output_norm.weight", "model.norm.weight"},
    {"output.weight", "lm_head.weight"},
};
constexpr NamePair kInLayer[] = {
    {"attn_norm.weight", "input_layernorm.weight"},    {"attn_q.weight", "self_attn.q_proj.weight"},
    {"attn_k.weight", "self_attn.k_proj.weight"},      {"attn_v.weight", "self_attn.v_proj.weight"},
    {"attn_output.weight", "self_attn.o_proj.weight"}, {"ffn_norm.weight", "post_attention_layernorm.weight"},
    {"ffn_gate.weight", "mlp.gate_proj.weight"},       {"ffn_up.weight", "mlp.up_proj.weight"},
    {"ffn_down.weight", "mlp.down_proj.weight"},
};
constexpr std::string_view kRopeFactors = "rope_freqs.weight";

// "blk.7.attn_q.weight" -> "model.layers.7.self_attn.q_proj.weight"; empty when no Llama has such a tensor.
std::string hf_name(std::string_view name) {
  for (const auto& [gguf, hf] : kOutside) {
    if (name == gguf) return std::string(hf);
  }
  constexpr std::string_view kBlock = "blk.";
  if (!name.starts_with(kBlock)) return "";
  const std::string_view rest = name.substr(kBlock.size());
  const size_t dot = rest.find('.');
  if (dot == std::string_view::npos) return "";
  for (const auto& [gguf, hf] : kInLayer) {
    if (rest.substr(dot + 1) == gguf) return fmt::format("model.layers.{}.{}", rest.substr(0, dot), hf);
  }
  return "";
}

// llama.cpp stores the rows of q and k so that its rotation pairs neighbours.
bool has_paired_rows(std::string_view hf) {
  return hf.ends_with("self_attn.q_proj.weight") || hf.ends_with("self_attn.k_proj.weight");
}

StoredTensor stored(const GgufTensor& tensor, const FileBytes& file, const std::string& what) {
  if (tensor.dims[2] != 1 || tensor.dims[3] != 1) model_error("{}: neither a matrix nor a vector", what);
  StoredTensor result;
  result.file = &file;
  result.encoding = tensor.encoding;
  result.rows = tensor.dims[1];
  result.columns = tensor.dims[0];
  result.offset = tensor.offset;
  return result;
}

// Llama 3's scaling stands in such a file as one divisor for each frequency.
std::vector<double> read_rope_factors(const GgufTensor& tensor, const FileBytes& file, int64_t head_size) {
  const StoredTensor factors = stored(tensor, file, fmt::format("{}: tensor {}", file.name(), kRopeFactors));
  if (factors.rows != 1 || factors.columns != head_size / 2) {
    model_error("{}: tensor {} is [{}, {}], the head size needs [1, {}]", file.name(), kRopeFactors, factors.rows,
                factors.columns, head_size / 2);
  }
  std::vector<float> values(static_cast<size_t>(factors.columns));
  read_slice(factors, {0, 1, 0, factors.columns}, DType::f32, values.data());
  return {values.begin(), values.end()};
}

}  // namespace

GgufSource::GgufSource(FileBytes file) : file_(std::move(file)), table_(file_), config_(parse_gguf_config(table_)) {
  for (const auto& [name, tensor] : table_.tensors()) {
    const std::string what = fmt::format("{}: tensor {}", file_.name(), in_quotes(name));
    if (name == kRopeFactors) {
      config_.rope_factors = read_rope_factors(tensor, file_, config_.head_size);
      continue;
    }
    const std::string hf = hf_name(name);
    if (hf.empty()) model_error("{}: no tensor of a Llama", what);
    StoredTensor entry = stored(tensor, file_, what);
    if (has_paired_rows(hf)) entry.paired_head = config_.head_size;
    tensors_.emplace(hf, entry);
  }
  validate(config_, file_.name());
  check_tensors(*this, file_.name());
}

std::pair<int64_t, int64_t> GgufSource::shape(std::string_view name) const {
  const StoredTensor& tensor = find_tensor(tensors_, name, file_.name());
  return {tensor.rows, tensor.columns};
}

void GgufSource::read(std::string_view name, const Slice& slice, DType dtype, void* dst) const {
  read_slice(find_tensor(tensors_, name, file_.name()), slice, dtype, dst);
}

rpc::TokenizerSpec GgufSource::tokenizer() const {
  return parse_gguf_tokenizer(table_);
}

std::string GgufSource::hash() const {
  Sha256 hash;
  hash.add("gguf");
  add_config(hash, config_);
  add_tensors(hash, tensors_);
  return hash.hex();
}

std::string GgufSource::describe() const {
  return "GGUF " + describe_tensors(tensors_);
}

}  // namespace accrete::worker
