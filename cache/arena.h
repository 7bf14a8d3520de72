// Arena: the bytes of all pages, mapped at once and touched as pages are used.
#pragma once

#include <cstddef>

namespace accrete::cache {

class Arena {
 public:
  explicit Arena(size_t bytes);  // throws std::bad_alloc
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;
  void* data() const { return data_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace accrete::cache
