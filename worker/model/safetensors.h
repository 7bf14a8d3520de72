// The header of a safetensors file: 8 bytes of length, JSON, then the tensors' bytes without gaps.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "worker/model/file_bytes.h"
#include "worker/model/stored_tensor.h"

namespace accrete::worker {

struct SafetensorsEntry {
  std::string dtype;           // "BF16"
  std::vector<int64_t> shape;  // at most 8 dimensions
  uint64_t offset = 0;         // in the file
  uint64_t bytes = 0;
};

using SafetensorsTable = std::map<std::string, SafetensorsEntry, std::less<>>;

// Throws ModelError naming the file, and the tensor and field, unless every tensor lies inside the file, has the size
// that its shape and dtype say, overlaps no other, and together they fill the file. Memory stays in proportion to the
// header.
SafetensorsTable parse_safetensors(const FileBytes& file);

// The entries that are matrices or vectors of a float type. The others (old files carry index buffers) are left out.
StoredTensors float_tensors(const SafetensorsTable& table, const FileBytes& file);

}  // namespace accrete::worker
