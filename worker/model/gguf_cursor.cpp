#include "worker/model/gguf_cursor.h"

#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

constexpr int kDeepestArray = 4;

}  // namespace

uint64_t scalar_bytes(GgufType type) {
  switch (type) {
    case GgufType::u8:
    case GgufType::i8:
    case GgufType::boolean:
      return 1;
    case GgufType::u16:
    case GgufType::i16:
      return 2;
    case GgufType::u32:
    case GgufType::i32:
    case GgufType::f32:
      return 4;
    case GgufType::u64:
    case GgufType::i64:
    case GgufType::f64:
      return 8;
    case GgufType::string:
    case GgufType::array:
      return 0;
  }
  return 0;
}

std::span<const uint8_t> GgufCursor::take(uint64_t bytes, std::string_view field) {
  if (bytes > left()) {
    model_error("{}: {}: {} bytes at {} run past the end of the file ({} bytes)", file_.name(), field, bytes, position_,
                file_.bytes().size());
  }
  const auto range = file_.bytes().subspan(position_, bytes);
  position_ += bytes;
  return range;
}

std::string_view GgufCursor::read_text(std::string_view field) {
  const auto length = read<uint64_t>(field);
  const auto text = take(length, field);
  return {reinterpret_cast<const char*>(text.data()), text.size()};
}

GgufType GgufCursor::read_type(std::string_view field) {
  const auto type = read<uint32_t>(field);
  if (type > static_cast<uint32_t>(GgufType::f64)) {
    model_error("{}: {}: value type {} is unknown", file_.name(), field, type);
  }
  return static_cast<GgufType>(type);
}

GgufValue GgufCursor::read_value(std::string_view field) {
  GgufValue value;
  value.type = read_type(field);
  if (value.type == GgufType::string) {
    const std::string_view text = read_text(field);
    value.bytes = {reinterpret_cast<const uint8_t*>(text.data()), text.size()};
  } else if (value.type == GgufType::array) {
    value.element = read_type(field);
    value.count = read<uint64_t>(field);
    const uint64_t begin = position_;
    skip_array(value.element, value.count, field, 1);
    value.bytes = file_.bytes().subspan(begin, position_ - begin);
  } else {
    value.bytes = take(scalar_bytes(value.type), field);
  }
  return value;
}

void GgufCursor::skip_array(GgufType element, uint64_t count, std::string_view field, int depth) {
  if (depth > kDeepestArray) model_error("{}: {}: arrays nested deeper than {}", file_.name(), field, kDeepestArray);
  // An element takes at least a byte, a string 8 and an array 12.
  const uint64_t scalar = scalar_bytes(element);
  const uint64_t least = scalar != 0 ? scalar : element == GgufType::string ? 8 : 12;
  if (count > left() / least) {
    model_error("{}: {}: an array of {} elements cannot fit the {} bytes left in the file", file_.name(), field, count,
                left());
  }
  if (scalar != 0) {
    take(count * scalar, field);
    return;
  }
  for (uint64_t i = 0; i < count; ++i) {
    if (element == GgufType::string) {
      read_text(field);
    } else {
      const GgufType inner = read_type(field);
      skip_array(inner, read<uint64_t>(field), field, depth + 1);
    }
  }
}

}  // namespace accrete::worker
