#include "worker/model/stage_device.h"

#include <sys/mman.h>

#include <cstdlib>
#include <cstring>
#include <new>

namespace accrete::worker {

// Large pages where the kernel has them: a decode step walks all of the weights.
DeviceBytes CpuStageDevice::allocate(int64_t bytes) {
  constexpr size_t kHugePage = 2 << 20;
  const size_t rounded = (static_cast<size_t>(bytes) + kHugePage - 1) / kHugePage * kHugePage;
  void* memory = mmap(nullptr, rounded + kHugePage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (memory == MAP_FAILED) throw std::bad_alloc();
  const auto address = (reinterpret_cast<uintptr_t>(memory) + kHugePage - 1) / kHugePage * kHugePage;
  auto* begin = reinterpret_cast<std::byte*>(address);
  madvise(begin, rounded, MADV_HUGEPAGE);  // a hint: refusal changes nothing but speed
  return {begin, [memory, mapped = rounded + kHugePage](std::byte*) { munmap(memory, mapped); }};
}

void CpuStageDevice::upload(void* to, const void* from, int64_t bytes) { std::memcpy(to, from, static_cast<size_t>(bytes)); }

}  // namespace accrete::worker
