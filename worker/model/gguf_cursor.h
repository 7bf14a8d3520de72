// GgufCursor: reads little-endian fields of untrusted bytes one after the other and never runs past their end.
#pragma once

#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

#include "worker/model/file_bytes.h"
#include "worker/model/gguf_file.h"

namespace accrete::worker {

class GgufCursor {
 public:
  explicit GgufCursor(const FileBytes& file) : file_(file) {}

  uint64_t position() const { return position_; }
  uint64_t left() const { return file_.bytes().size() - position_; }

  // Each throws ModelError naming the file, `field` and the position when the file ends before it.
  std::span<const uint8_t> take(uint64_t bytes, std::string_view field);
  template <class T>
  T read(std::string_view field) {
    T value;
    std::memcpy(&value, take(sizeof(T), field).data(), sizeof(T));
    return value;
  }
  std::string_view read_text(std::string_view field);  // 8 bytes of length, then the text
  GgufValue read_value(std::string_view field);        // 4 bytes of type, then the value

 private:
  GgufType read_type(std::string_view field);
  void skip_array(GgufType element, uint64_t count, std::string_view field, int depth);

  const FileBytes& file_;
  uint64_t position_ = 0;
};

// Bytes of a scalar type; 0 for strings and arrays.
uint64_t scalar_bytes(GgufType type);

}  // namespace accrete::worker
