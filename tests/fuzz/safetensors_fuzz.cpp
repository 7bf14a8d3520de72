// A safetensors file: the header, and every float of every tensor that it lets through.
#include <algorithm>
#include <vector>

#include "worker/model/safetensors.h"

using namespace accrete;          // NOLINT: a program of its own
using namespace accrete::worker;  // NOLINT

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const FileBytes file = FileBytes::borrow({data, size}, "fuzz.safetensors");
  try {
    const StoredTensors tensors = float_tensors(parse_safetensors(file), file);
    for (const auto& [name, tensor] : tensors) {
      std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.columns));
      read_slice(tensor, {0, tensor.rows, 0, tensor.columns}, DType::f32, values.data());
    }
  } catch (const ModelError&) {
  }
  return 0;
}
