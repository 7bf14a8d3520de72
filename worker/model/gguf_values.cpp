// GgufFile's typed access to its metadata.
#include <cmath>
#include <cstring>
#include <limits>

#include "worker/model/gguf_cursor.h"
#include "worker/model/gguf_file.h"
#include "worker/model/model_error.h"

namespace accrete::worker {
namespace {

template <class T>
T load(const uint8_t* src) {
  T value;
  std::memcpy(&value, src, sizeof(T));
  return value;
}

const char* name_of(GgufType type) {
  constexpr const char* kNames[] = {"u8",   "i8",     "u16",   "i16", "u32", "i32", "f32",
                                    "bool", "string", "array", "u64", "i64", "f64"};
  return kNames[static_cast<size_t>(type)];
}

// Empty when the value is no integer, or one beyond 63 bits.
std::optional<int64_t> as_integer(const GgufValue& value) {
  const uint8_t* src = value.bytes.data();
  switch (value.type) {
    case GgufType::u8:
      return load<uint8_t>(src);
    case GgufType::i8:
      return load<int8_t>(src);
    case GgufType::u16:
      return load<uint16_t>(src);
    case GgufType::i16:
      return load<int16_t>(src);
    case GgufType::u32:
      return load<uint32_t>(src);
    case GgufType::i32:
      return load<int32_t>(src);
    case GgufType::i64:
      return load<int64_t>(src);
    case GgufType::u64: {
      const auto wide = load<uint64_t>(src);
      if (wide > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
      return static_cast<int64_t>(wide);
    }
    default:
      return std::nullopt;
  }
}

}  // namespace

const GgufValue* GgufFile::find(std::string_view key) const {
  const auto it = values_.find(key);
  return it == values_.end() ? nullptr : &it->second;
}

void GgufFile::wrong_type(std::string_view key, const GgufValue& value, std::string_view wanted) const {
  const std::string found = value.type == GgufType::array ? fmt::format("array of {}", name_of(value.element))
                                                          : std::string(name_of(value.type));
  model_error("{}: {} must be {}, not {}", name(), key, wanted, found);
}

std::optional<int64_t> GgufFile::integer(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  const auto found = as_integer(*value);
  if (!found) wrong_type(key, *value, "an integer of 63 bits");
  return found;
}

std::optional<double> GgufFile::number(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  std::optional<double> found;
  if (value->type == GgufType::f32)
    found = load<float>(value->bytes.data());
  else if (value->type == GgufType::f64)
    found = load<double>(value->bytes.data());
  else if (const auto whole = as_integer(*value))
    found = static_cast<double>(*whole);
  if (!found) wrong_type(key, *value, "a number");
  if (!std::isfinite(*found)) model_error("{}: {} is not finite", name(), key);
  return found;
}

std::optional<bool> GgufFile::boolean(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::boolean) wrong_type(key, *value, "bool");
  return value->bytes[0] != 0;
}

std::optional<std::string_view> GgufFile::text(std::string_view key) const {
  const GgufValue* value = find(key);
  if (value == nullptr) return std::nullopt;
  if (value->type != GgufType::string) wrong_type(key, *value, "a string");
  return std::string_view(reinterpret_cast<const char*>(value->bytes.data()), value->bytes.size());
}

const GgufValue* GgufFile::array_of(std::string_view key, std::string_view wanted) const {
  const GgufValue* value = find(key);
  if (value != nullptr && value->type != GgufType::array) wrong_type(key, *value, wanted);
  return value;
}

std::vector<std::string_view> GgufFile::texts(std::string_view key) const {
  const GgufValue* value = array_of(key, "an array of strings");
  std::vector<std::string_view> list;
  if (value == nullptr) return list;
  if (value->element != GgufType::string) wrong_type(key, *value, "an array of strings");
  list.reserve(value->count);
  const uint8_t* src = value->bytes.data();
  for (uint64_t i = 0; i < value->count; ++i) {  // lengths were checked when the file was opened
    const auto length = load<uint64_t>(src);
    list.emplace_back(reinterpret_cast<const char*>(src) + 8, length);
    src += 8 + length;
  }
  return list;
}

std::vector<float> GgufFile::floats(std::string_view key) const {
  const GgufValue* value = array_of(key, "an array of f32");
  if (value == nullptr) return {};
  if (value->element != GgufType::f32) wrong_type(key, *value, "an array of f32");
  std::vector<float> list(value->count);
  if (!list.empty()) std::memcpy(list.data(), value->bytes.data(), value->bytes.size());
  return list;
}

std::vector<int32_t> GgufFile::integers(std::string_view key) const {
  const GgufValue* value = array_of(key, "an array of i32");
  if (value == nullptr) return {};
  if (value->element != GgufType::i32 && value->element != GgufType::u32) wrong_type(key, *value, "an array of i32");
  std::vector<int32_t> list(value->count);
  if (!list.empty()) std::memcpy(list.data(), value->bytes.data(), value->bytes.size());
  return list;
}

}  // namespace accrete::worker
