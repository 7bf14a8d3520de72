// A typed array in device memory, filled from the host or with random numbers. In builds with CUDA.
#pragma once

#include <array>
#include <span>
#include <vector>

#include "kernels/device/device_memory.h"
#include "kernels/device/random_fill.h"
#include "kernels/view.h"

namespace accrete::launch {

template <class T>
class DeviceArray {
 public:
  DeviceArray() = default;
  explicit DeviceArray(int64_t count) : memory_(static_cast<size_t>(count) * sizeof(T)) {}
  // Waits until the values are there.
  DeviceArray(std::span<const T> values, Stream& stream) : DeviceArray(static_cast<int64_t>(values.size())) {
    copy_to_device(memory_.data(), values.data(), memory_.bytes(), stream);
    synchronize(stream);
  }
  DeviceArray(const std::vector<T>& values, Stream& stream) : DeviceArray(std::span<const T>(values), stream) {}

  T* data() const { return memory_.template as<T>(); }
  int64_t size() const { return static_cast<int64_t>(memory_.bytes() / sizeof(T)); }
  size_t bytes() const { return memory_.bytes(); }
  // Elements from `first` on, as a tensor.
  template <int N>
  View<T, N> view(const std::array<int64_t, N>& dims, int64_t first = 0) const {
    const View<T, N> whole(data() + first, dims);
    CHECK(first >= 0 && first + whole.size() <= size(), first, whole.size(), size());
    return whole;
  }
  View<T, 1> flat() const { return {data(), {size()}}; }

 private:
  DeviceMemory memory_;
};

// Enqueued. Different keys: different numbers.
template <class T>
DeviceArray<T> random_array(int64_t count, uint64_t key, float deviation, Stream& stream) {
  DeviceArray<T> array(count);
  fill_random_cuda({array.flat(), key, deviation}, stream);
  return array;
}

}  // namespace accrete::launch
