#include "cache/arena.h"

#include <sys/mman.h>

#include <new>

namespace accrete::cache {

Arena::Arena(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  data_ = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (data_ == MAP_FAILED) throw std::bad_alloc();
  madvise(data_, bytes, MADV_HUGEPAGE);  // a hint: fewer TLB misses where it is granted
}

Arena::~Arena() {
  if (bytes_ > 0) munmap(data_, bytes_);
}

}  // namespace accrete::cache
