#include "worker/model/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>

#include "worker/model/model_error.h"
#include "worker/model/safetensors_header.h"

namespace accrete::worker {
namespace {

constexpr uint64_t kLargestHeader = 100'000'000;  // as the format says

struct DtypeSize {
  const char* name;
  uint64_t bytes;
};
constexpr DtypeSize kDtypes[] = {{"F64", 8}, {"F32", 4}, {"F16", 2},  {"BF16", 2},    {"I64", 8},
                                 {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U64", 8},     {"U32", 4},
                                 {"U16", 2}, {"U8", 1},  {"BOOL", 1}, {"F8_E4M3", 1}, {"F8_E5M2", 1}};

std::string_view header_of(const FileBytes& file) {
  const std::span<const uint8_t> bytes = file.bytes();
  if (bytes.size() < 8) model_error("{}: {} bytes are too few for a safetensors header", file.name(), bytes.size());
  uint64_t length;
  std::memcpy(&length, bytes.data(), 8);
  if (length > kLargestHeader) {
    model_error("{}: header length {} is over the format's limit of {}", file.name(), length, kLargestHeader);
  }
  if (length > bytes.size() - 8) {
    model_error("{}: header length {} runs past the end of the file ({} bytes)", file.name(), length, bytes.size());
  }
  return {reinterpret_cast<const char*>(bytes.data()) + 8, static_cast<size_t>(length)};
}

uint64_t element_bytes(const SafetensorsEntry& entry, const std::string& what) {
  for (const auto& [name, bytes] : kDtypes) {
    if (entry.dtype == name) return bytes;
  }
  model_error("{}: dtype is {}, which the format does not know", what, in_quotes(entry.dtype));
}

void check_size(const SafetensorsEntry& entry, const std::string& what) {
  uint64_t bytes = element_bytes(entry, what);
  bool empty = false;
  for (const int64_t dim : entry.shape) {
    empty |= dim == 0;
    if (dim != 0 && __builtin_mul_overflow(bytes, static_cast<uint64_t>(dim), &bytes)) {
      model_error("{}: shape overflows 64 bits", what);
    }
  }
  if (empty) bytes = 0;
  if (bytes != entry.bytes) {
    model_error("{}: shape and dtype need {} bytes, data_offsets give {}", what, bytes, entry.bytes);
  }
}

// Tensors in the order of the file must follow one another without gap or overlap, to its end.
void check_layout(const SafetensorsTable& table, const FileBytes& file, uint64_t data_begin) {
  std::vector<SafetensorsTable::const_iterator> order;
  order.reserve(table.size());
  for (auto it = table.begin(); it != table.end(); ++it) order.push_back(it);
  std::sort(order.begin(), order.end(), [](const auto& a, const auto& b) {
    return std::pair(a->second.offset, a->second.bytes) < std::pair(b->second.offset, b->second.bytes);
  });
  uint64_t end = data_begin;
  for (const auto& it : order) {
    const auto& [name, entry] = *it;
    if (entry.offset < end)
      model_error("{}: tensor {}: data_offsets overlap another tensor's", file.name(), in_quotes(name));
    if (entry.offset > end) {
      model_error("{}: tensor {}: data_offsets leave a gap of {} bytes before it", file.name(), in_quotes(name),
                  entry.offset - end);
    }
    end += entry.bytes;
  }
  if (end != file.bytes().size()) {
    model_error("{}: {} bytes after the last tensor belong to none", file.name(), file.bytes().size() - end);
  }
}

std::optional<Encoding> float_encoding(std::string_view dtype) {
  if (dtype == "F32") return Encoding::f32;
  if (dtype == "F16") return Encoding::f16;
  if (dtype == "BF16") return Encoding::bf16;
  return std::nullopt;
}

}  // namespace

SafetensorsTable parse_safetensors(const FileBytes& file) {
  const std::string_view header = header_of(file);
  SafetensorsTable table = parse_safetensors_header(header, file.name());
  const uint64_t data_begin = 8 + header.size();
  const uint64_t data_bytes = file.bytes().size() - data_begin;
  for (auto& [name, entry] : table) {
    const std::string what = fmt::format("{}: tensor {}", file.name(), in_quotes(name));
    if (entry.offset > data_bytes || entry.bytes > data_bytes - entry.offset) {
      model_error("{}: data_offsets [{}, {}] lie outside the file, whose data have {} bytes", what, entry.offset,
                  entry.offset + entry.bytes, data_bytes);
    }
    check_size(entry, what);
    entry.offset += data_begin;
  }
  check_layout(table, file, data_begin);
  return table;
}

StoredTensors float_tensors(const SafetensorsTable& table, const FileBytes& file) {
  StoredTensors tensors;
  for (const auto& [name, entry] : table) {
    const auto encoding = float_encoding(entry.dtype);
    if (!encoding || entry.shape.empty() || entry.shape.size() > 2 || entry.bytes == 0) continue;
    StoredTensor tensor;
    tensor.file = &file;
    tensor.encoding = *encoding;
    tensor.rows = entry.shape.size() == 2 ? entry.shape[0] : 1;
    tensor.columns = entry.shape.back();
    tensor.offset = entry.offset;
    tensors.emplace(name, tensor);
  }
  return tensors;
}

}  // namespace accrete::worker
