// Archive: plain structs to bytes and back between ranks of one binary, by one list of fields for both directions.
#pragma once

#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/check.h"

namespace accrete::worker {

class ByteWriter {
 public:
  static constexpr bool kReading = false;
  std::vector<std::byte> bytes;

  void raw(const void* from, size_t count) {
    const auto* begin = static_cast<const std::byte*>(from);
    bytes.insert(bytes.end(), begin, begin + count);
  }
};

class ByteReader {
 public:
  static constexpr bool kReading = true;
  explicit ByteReader(std::span<const std::byte> from) : rest_(from) {}

  void raw(void* to, size_t count) {
    CHECK(count <= rest_.size(), count, rest_.size());
    std::memcpy(to, rest_.data(), count);
    rest_ = rest_.subspan(count);
  }
  size_t left() const { return rest_.size(); }

 private:
  std::span<const std::byte> rest_;
};

// Numbers, enums and structs of them.
template <class Archive, class T>
  requires(std::is_trivially_copyable_v<T>)
void field(Archive& archive, T& value) {
  archive.raw(&value, sizeof(value));
}
template <class Archive, class T>
void field(Archive& archive, std::vector<T>& values);

template <class Archive, class T>
void field(Archive& archive, std::vector<T>& values) {
  uint64_t count = values.size();
  archive.raw(&count, sizeof(count));
  if constexpr (Archive::kReading) {
    CHECK(count <= archive.left(), count, archive.left());
    values.resize(count);
  }
  if constexpr (std::is_trivially_copyable_v<T>) {
    if (count > 0) archive.raw(values.data(), count * sizeof(T));
  } else {
    for (T& value : values) field(archive, value);
  }
}

template <class Archive, class T>
void field(Archive& archive, std::optional<T>& value) {
  bool there = value.has_value();
  archive.raw(&there, sizeof(there));
  if constexpr (Archive::kReading) value = there ? std::optional<T>(T{}) : std::nullopt;
  if (there) field(archive, *value);
}

template <class Archive, class... T>
void fields(Archive& archive, T&... values) {
  (field(archive, values), ...);
}

}  // namespace accrete::worker
