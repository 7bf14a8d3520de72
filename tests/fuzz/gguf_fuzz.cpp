// A GGUF file: metadata, tensor table, tokenizer, and a row of every tensor; as a whole model too when it is one.
#include <vector>

#include "worker/model/gguf_metadata.h"
#include "worker/model/gguf_source.h"

using namespace accrete;          // NOLINT: a program of its own
using namespace accrete::worker;  // NOLINT

namespace {

void read_tensors(const GgufFile& table, const FileBytes& file) {
  for (const auto& [name, tensor] : table.tensors()) {
    const StoredTensor stored{&file, tensor.encoding, tensor.dims[1], tensor.dims[0], tensor.offset, 0};
    std::vector<bf16> row(static_cast<size_t>(stored.columns));
    read_slice(stored, {stored.rows - 1, stored.rows, 0, stored.columns}, DType::bf16, row.data());
  }
}

template <class Body>
void attempt(const Body& body) {
  try {
    body();
  } catch (const ModelError&) {
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const FileBytes file = FileBytes::borrow({data, size}, "fuzz.gguf");
  attempt([&] {
    const GgufFile table(file);
    read_tensors(table, file);
    attempt([&] { parse_gguf_tokenizer(table); });
    attempt([&] { parse_gguf_config(table); });
  });
  attempt([&] {
    const GgufSource source(FileBytes::borrow({data, size}, "fuzz.gguf"));
    const ModelConfig& config = source.config();
    std::vector<float> values(static_cast<size_t>(config.head_size * config.hidden));
    source.read("model.layers.0.self_attn.q_proj.weight", {0, config.head_size, 0, config.hidden}, DType::f32,
                values.data());
    source.hash();
  });
  return 0;
}
