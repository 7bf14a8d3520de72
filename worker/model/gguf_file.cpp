#include "worker/model/gguf_file.h"

#include <algorithm>
#include <bit>
#include <limits>

#include "worker/model/gguf_cursor.h"
#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

static_assert(std::endian::native == std::endian::little, "GGUF values are read as they stand in the file");

constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kLargestAlignment = 1 << 20;
constexpr size_t kLongestName = 256;

struct FileType {
  uint32_t id;
  Encoding encoding;
};
constexpr FileType kFileTypes[] = {
    {0, Encoding::f32},   {1, Encoding::f16},   {2, Encoding::q4_0},  {3, Encoding::q4_1},
    {6, Encoding::q5_0},  {7, Encoding::q5_1},  {8, Encoding::q8_0},  {12, Encoding::q4_k},
    {13, Encoding::q5_k}, {14, Encoding::q6_k}, {30, Encoding::bf16},
};

Encoding encoding_of(uint32_t type, const std::string& what) {
  for (const auto& [id, encoding] : kFileTypes) {
    if (id == type) return encoding;
  }
  model_error("{}: type {} is not supported (F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K are)", what,
              type);
}

uint32_t read_version(GgufCursor& cursor, const std::string& name) {
  const auto magic = cursor.take(4, "magic");
  if (std::memcmp(magic.data(), "GGUF", 4) != 0) model_error("{}: not a GGUF file (magic)", name);
  const auto version = cursor.read<uint32_t>("version");
  if (version == __builtin_bswap32(2) || version == __builtin_bswap32(3)) {
    model_error("{}: a big-endian GGUF file, which is not supported", name);
  }
  if (version != 2 && version != 3) model_error("{}: GGUF version {} is not supported (2 and 3 are)", name, version);
  return version;
}

// Element and byte counts of dims, checked for zero, blocks and overflow.
void size_tensor(GgufTensor& tensor, const std::string& what) {
  const EncodingShape& shape = shape_of(tensor.encoding);
  if (tensor.dims[0] % shape.block != 0) {
    model_error("{}: rows of {} elements are no multiple of {}'s block of {}", what, tensor.dims[0], shape.name,
                shape.block);
  }
  int64_t elements = 1;
  for (const int64_t dim : tensor.dims) {
    if (dim < 1) model_error("{}: a dimension is {}", what, dim);
    if (__builtin_mul_overflow(elements, dim, &elements)) model_error("{}: dimensions overflow 63 bits", what);
  }
  int64_t bytes = 0;
  if (__builtin_mul_overflow(elements / shape.block, shape.bytes, &bytes)) {
    model_error("{}: dimensions overflow 63 bits", what);
  }
  tensor.bytes = static_cast<uint64_t>(bytes);
}

GgufTensor read_tensor(GgufCursor& cursor, const std::string& what) {
  GgufTensor tensor;
  const auto dimensions = cursor.read<uint32_t>(what);
  if (dimensions < 1 || dimensions > 4) model_error("{}: {} dimensions (1 to 4 are possible)", what, dimensions);
  tensor.dimensions = static_cast<int>(dimensions);
  for (uint32_t i = 0; i < dimensions; ++i) {
    const auto dim = cursor.read<uint64_t>(what);
    if (dim > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) {
      model_error("{}: dimensions overflow 63 bits", what);
    }
    tensor.dims[i] = static_cast<int64_t>(dim);
  }
  tensor.encoding = encoding_of(cursor.read<uint32_t>(what), what);
  tensor.offset = cursor.read<uint64_t>(what);
  size_tensor(tensor, what);
  return tensor;
}

struct Layout {
  uint64_t data_begin;
  uint64_t alignment;
};

// Turns offsets from the data's begin into offsets in the file, and checks that no tensor leaves it or overlaps
// another.
void place_tensors(std::map<std::string, GgufTensor, std::less<>>& tensors, const FileBytes& file, Layout layout) {
  const uint64_t size = file.bytes().size();
  const uint64_t data_bytes = size > layout.data_begin ? size - layout.data_begin : 0;
  std::vector<std::pair<const std::string*, GgufTensor*>> order;
  for (auto& [name, tensor] : tensors) {
    if (tensor.offset % layout.alignment != 0) {
      model_error("{}: tensor {}: offset {} is not aligned to {}", file.name(), in_quotes(name), tensor.offset,
                  layout.alignment);
    }
    if (tensor.offset > data_bytes || tensor.bytes > data_bytes - tensor.offset) {
      model_error("{}: tensor {}: {} bytes at offset {} lie outside the file, whose data have {} bytes", file.name(),
                  in_quotes(name), tensor.bytes, tensor.offset, data_bytes);
    }
    tensor.offset += layout.data_begin;
    order.emplace_back(&name, &tensor);
  }
  std::sort(order.begin(), order.end(),
            [](const auto& a, const auto& b) { return a.second->offset < b.second->offset; });
  for (size_t i = 1; i < order.size(); ++i) {
    if (order[i - 1].second->offset + order[i - 1].second->bytes > order[i].second->offset) {
      model_error("{}: tensor {} overlaps tensor {}", file.name(), in_quotes(*order[i].first),
                  in_quotes(*order[i - 1].first));
    }
  }
}

}  // namespace

GgufFile::GgufFile(const FileBytes& file) : file_(file) {
  GgufCursor cursor(file);
  version_ = read_version(cursor, name());
  const auto tensor_count = cursor.read<uint64_t>("tensor count");
  const auto value_count = cursor.read<uint64_t>("metadata count");
  // The smallest metadata entry has 13 bytes, the smallest tensor entry 32.
  if (value_count > cursor.left() / 13) model_error("{}: metadata count {} cannot fit the file", name(), value_count);
  if (tensor_count > cursor.left() / 32) model_error("{}: tensor count {} cannot fit the file", name(), tensor_count);
  for (uint64_t i = 0; i < value_count; ++i) {
    const std::string key(cursor.read_text("metadata key").substr(0, 65536));
    const GgufValue value = cursor.read_value(in_quotes(key));
    if (!values_.emplace(key, value).second) model_error("{}: metadata {} stands twice", name(), in_quotes(key));
  }
  for (uint64_t i = 0; i < tensor_count; ++i) {
    const std::string_view tensor_name = cursor.read_text("tensor name");
    const std::string what = fmt::format("{}: tensor {}", name(), in_quotes(tensor_name));
    if (tensor_name.size() > kLongestName) model_error("{}: the name has {} bytes", what, tensor_name.size());
    if (!tensors_.emplace(tensor_name, read_tensor(cursor, what)).second) model_error("{} stands twice", what);
  }
  const int64_t alignment = integer("general.alignment").value_or(kDefaultAlignment);
  if (alignment < 1 || alignment > static_cast<int64_t>(kLargestAlignment) ||
      !std::has_single_bit(static_cast<uint64_t>(alignment))) {
    model_error("{}: general.alignment is {}, which is no power of two up to {}", name(), alignment, kLargestAlignment);
  }
  const auto step = static_cast<uint64_t>(alignment);
  place_tensors(tensors_, file, {(cursor.position() + step - 1) / step * step, step});
}

}  // namespace accrete::worker
