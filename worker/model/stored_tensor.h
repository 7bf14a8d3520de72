// StoredTensor: where a matrix lies in a file and how, and the reading of its slices.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "worker/model/encoding.h"
#include "worker/model/file_bytes.h"
#include "worker/model/tensor_source.h"

namespace accrete::worker {

struct StoredTensor {
  const FileBytes* file = nullptr;
  Encoding encoding = Encoding::f32;
  int64_t rows = 0, columns = 0;  // a vector is one row; columns is a multiple of the encoding's block
  uint64_t offset = 0;            // of the first row, in the file; rows * row_bytes() from there lie inside it
  // 0: rows are in Hugging Face's order. Else the head size D: each head's rows stand as pairs (0, D/2, 1, D/2 + 1,
  // ...).
  int64_t paired_head = 0;

  int64_t row_bytes() const { return columns / shape_of(encoding).block * shape_of(encoding).bytes; }
  int64_t bytes() const { return rows * row_bytes(); }
};

using StoredTensors = std::map<std::string, StoredTensor, std::less<>>;

// The checkpoint row that holds Hugging Face's row.
int64_t stored_row(const StoredTensor& tensor, int64_t row);

// As TensorSource::read.
void read_slice(const StoredTensor& tensor, const Slice& slice, DType dtype, void* dst);

// Throws ModelError naming `where` when the table has no such tensor.
const StoredTensor& find_tensor(const StoredTensors& tensors, std::string_view name, const std::string& where);

// "Q4_1, 272 tensors, 98 MB": the encoding that holds most bytes.
std::string describe_tensors(const StoredTensors& tensors);

}  // namespace accrete::worker
