// GgufFile: the metadata and tensor table of a GGUF file (version 2 or 3, little endian), checked but not copied:
// values are spans into the file's bytes.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "worker/model/encoding.h"
#include "worker/model/file_bytes.h"

namespace accrete::worker {

enum class GgufType : uint32_t { u8, i8, u16, i16, u32, i32, f32, boolean, string, array, u64, i64, f64 };

struct GgufValue {
  GgufType type = GgufType::u8;
  GgufType element = GgufType::u8;  // of an array
  uint64_t count = 1;               // of an array
  std::span<const uint8_t> bytes;   // scalars: the value; strings: the text; arrays: the elements as stored
};

struct GgufTensor {
  Encoding encoding = Encoding::f32;
  std::array<int64_t, 4> dims{1, 1, 1, 1};  // the fastest first: [columns, rows, ...]
  int dimensions = 0;
  uint64_t offset = 0;  // in the file
  uint64_t bytes = 0;
};

class GgufFile {
 public:
  // Borrows `file`. Throws ModelError naming the file and the key, tensor or field: for anything that lies outside the
  // file, overflows, stands twice, overlaps, or is of a type unknown here. Memory stays in proportion to the file.
  explicit GgufFile(const FileBytes& file);

  uint32_t version() const { return version_; }
  const std::string& name() const { return file_.name(); }
  const std::map<std::string, GgufTensor, std::less<>>& tensors() const { return tensors_; }

  // nullptr when there is no such key.
  const GgufValue* find(std::string_view key) const;
  // Empty when the key is absent; ModelError when its value has another type.
  std::optional<int64_t> integer(std::string_view key) const;  // any integer type
  std::optional<double> number(std::string_view key) const;    // any number
  std::optional<bool> boolean(std::string_view key) const;
  std::optional<std::string_view> text(std::string_view key) const;
  std::vector<std::string_view> texts(std::string_view key) const;
  std::vector<float> floats(std::string_view key) const;      // an array of f32
  std::vector<int32_t> integers(std::string_view key) const;  // an array of i32 or u32

 private:
  const GgufValue* array_of(std::string_view key, std::string_view wanted) const;
  [[noreturn]] void wrong_type(std::string_view key, const GgufValue& value, std::string_view wanted) const;

  const FileBytes& file_;
  uint32_t version_ = 0;
  std::map<std::string, GgufValue, std::less<>> values_;
  std::map<std::string, GgufTensor, std::less<>> tensors_;
};

}  // namespace accrete::worker
