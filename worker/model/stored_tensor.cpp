#include "worker/model/stored_tensor.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "kernels/check.h"
#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

// Floats decoded at a time: a multiple of every block, and 8 KB, so that it stays in the L1 cache.
constexpr int64_t kChunk = 2048;

bool same_bytes(Encoding encoding, DType dtype) {
  return (encoding == Encoding::f32 && dtype == DType::f32) || (encoding == Encoding::bf16 && dtype == DType::bf16);
}

// Elements [begin, end) of the row at src to dst, through the blocks that cover them.
void read_elements(Encoding encoding, const uint8_t* src, std::pair<int64_t, int64_t> range, DType dtype,
                   uint8_t* dst) {
  const auto& [name, block, bytes] = shape_of(encoding);
  alignas(64) std::array<float, kChunk> chunk;
  for (int64_t first = range.first / block * block; first < range.second; first += kChunk) {
    const int64_t last = std::min(first + kChunk, (range.second + block - 1) / block * block);
    decode_blocks(encoding, src + first / block * bytes, (last - first) / block, chunk.data());
    const int64_t begin = std::max(first, range.first), end = std::min(last, range.second);
    store_floats(chunk.data() + (begin - first), end - begin, dtype, dst);
    dst += static_cast<size_t>(end - begin) * size_of(dtype);
  }
}

// The file's bytes from the slice's first element to its last (of whole heads, where rows are paired).
std::span<const uint8_t> covering(const StoredTensor& tensor, const Slice& slice) {
  const int64_t head = std::max<int64_t>(tensor.paired_head, 1);
  const int64_t begin = slice.row_begin / head * head;
  const int64_t end = std::min(tensor.rows, (slice.row_end + head - 1) / head * head);
  const uint8_t* base = tensor.file->bytes().data() + tensor.offset;
  return {base + begin * tensor.row_bytes(), static_cast<size_t>((end - begin) * tensor.row_bytes())};
}

// Asks for the slice ahead of its reading: as one range, or row by row where the columns between are worth skipping.
void ask_for(const StoredTensor& tensor, const Slice& slice, std::span<const uint8_t> range) {
  constexpr int64_t kSkipBytes = 16 * 1024;  // four pages
  const auto& [name, block, bytes] = shape_of(tensor.encoding);
  const int64_t first = slice.column_begin / block * bytes;
  const int64_t width = (slice.column_end + block - 1) / block * bytes - first;
  if (tensor.row_bytes() - width < kSkipBytes) return tensor.file->will_need(range);
  for (size_t row = 0; row < range.size(); row += static_cast<size_t>(tensor.row_bytes())) {
    tensor.file->will_need(range.subspan(row + static_cast<size_t>(first), static_cast<size_t>(width)));
  }
}

}  // namespace

int64_t stored_row(const StoredTensor& tensor, int64_t row) {
  if (tensor.paired_head == 0) return row;
  const int64_t half = tensor.paired_head / 2;
  const int64_t head = row / tensor.paired_head, in_head = row % tensor.paired_head;
  return head * tensor.paired_head + in_head % half * 2 + in_head / half;
}

void read_slice(const StoredTensor& tensor, const Slice& slice, DType dtype, void* dst) {
  CHECK(dtype == DType::f32 || dtype == DType::bf16, name_of(dtype));
  CHECK(0 <= slice.row_begin && slice.row_begin <= slice.row_end && slice.row_end <= tensor.rows, slice.row_begin,
        slice.row_end, tensor.rows);
  CHECK(0 <= slice.column_begin && slice.column_begin <= slice.column_end && slice.column_end <= tensor.columns,
        slice.column_begin, slice.column_end, tensor.columns);
  if (slice.rows() == 0 || slice.columns() == 0) return;
  const std::span<const uint8_t> range = covering(tensor, slice);
  ask_for(tensor, slice, range);
  const uint8_t* base = tensor.file->bytes().data() + tensor.offset;
  const bool copy = same_bytes(tensor.encoding, dtype);
  const size_t width = size_of(dtype), row_size = static_cast<size_t>(slice.columns()) * width;
  auto* out = static_cast<uint8_t*>(dst);
  if (copy && slice.columns() == tensor.columns && tensor.paired_head == 0) {
    std::memcpy(out, base + slice.row_begin * tensor.row_bytes(), static_cast<size_t>(slice.rows()) * row_size);
  } else {
    for (int64_t row = slice.row_begin; row < slice.row_end; ++row, out += row_size) {
      const uint8_t* src = base + stored_row(tensor, row) * tensor.row_bytes();
      if (copy)
        std::memcpy(out, src + static_cast<size_t>(slice.column_begin) * width, row_size);
      else
        read_elements(tensor.encoding, src, {slice.column_begin, slice.column_end}, dtype, out);
    }
  }
  tensor.file->done_with(range);
}

const StoredTensor& find_tensor(const StoredTensors& tensors, std::string_view name, const std::string& where) {
  const auto it = tensors.find(name);
  if (it == tensors.end()) model_error("{}: no tensor {}", where, in_quotes(name));
  return it->second;
}

std::string describe_tensors(const StoredTensors& tensors) {
  std::map<Encoding, int64_t> by_encoding;
  int64_t total = 0;
  for (const auto& [name, tensor] : tensors) {
    by_encoding[tensor.encoding] += tensor.bytes();
    total += tensor.bytes();
  }
  const auto most = std::max_element(by_encoding.begin(), by_encoding.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  const char* name = most == by_encoding.end() ? "empty" : shape_of(most->first).name;
  return fmt::format("{}, {} tensors, {}", name, tensors.size(), human_bytes(total));
}

}  // namespace accrete::worker
