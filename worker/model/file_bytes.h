// FileBytes: the bytes of a model file, memory-mapped and read-only, or borrowed from memory (tests, fuzz targets).
// Owned by a TensorSource; thread-safe, since nothing in it changes after construction.
#pragma once

#include <cstdint>
#include <span>
#include <string>

namespace accrete::worker {

class FileBytes {
 public:
  // Throws ModelError naming the path when it is missing, unreadable, no regular file or empty.
  static FileBytes map(const std::string& path);
  // `bytes` must outlive the object; `name` stands in messages.
  static FileBytes borrow(std::span<const uint8_t> bytes, std::string name);

  FileBytes(FileBytes&& other) noexcept;
  FileBytes& operator=(FileBytes&&) = delete;
  ~FileBytes();

  std::span<const uint8_t> bytes() const { return bytes_; }
  const std::string& name() const { return name_; }
  int64_t size() const { return static_cast<int64_t>(bytes_.size()); }

  // Advice to the kernel about a range inside bytes(): read it ahead; or drop it from this process (it stays in the
  // page cache; small ranges are kept), so that loading a model never holds all of its files resident. Does nothing to
  // borrowed bytes.
  void will_need(std::span<const uint8_t> range) const;
  void done_with(std::span<const uint8_t> range) const;

 private:
  FileBytes(std::span<const uint8_t> bytes, std::string name, bool mapped)
      : bytes_(bytes), name_(std::move(name)), mapped_(mapped) {}
  void advise(std::span<const uint8_t> range, int advice) const;

  std::span<const uint8_t> bytes_;
  std::string name_;
  bool mapped_ = false;
};

}  // namespace accrete::worker
