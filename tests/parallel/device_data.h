// Data for tests of groups of device memory: numbers that every rank can compute for every other rank, buffers, and the comparisons that
// all ranks make together. Needs CUDA.
#pragma once

#include <fmt/format.h>

#include <cmath>
#include <cstring>
#include <span>
#include <string>
#include <vector>

#include "kernels/device/device_memory.h"
#include "kernels/dtype.h"
#include "parallel/communicator.h"

namespace accrete::parallel {

// Rank's i-th number of a seed, in [-1, 1).
inline float number(uint64_t seed, int rank, uint64_t i) {
  uint64_t z = (seed * 64 + static_cast<uint64_t>(rank)) * 0x9e3779b97f4a7c15u + i * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  z ^= z >> 31;
  return static_cast<float>(z >> 40) * 0x1p-23f - 1.0f;
}

// `count` elements on the device and as many, pinned, on the host. One element of room before the data and one after it stand guard.
template <class T>
class Buffer {
 public:
  explicit Buffer(size_t count) : count_(count), device_((count + 2) * sizeof(T)), host_((count + 2) * sizeof(T)) {}
  T* device() const { return device_.template as<T>() + 1; }
  T& operator[](size_t i) { return host_.template as<T>()[i + 1]; }
  size_t count() const { return count_; }
  std::span<std::byte> bytes() const { return {reinterpret_cast<std::byte*>(device()), count_ * sizeof(T)}; }
  std::span<std::byte> part(size_t begin, size_t count) const { return bytes().subspan(begin * sizeof(T), count * sizeof(T)); }

  template <class Value>
  void fill(const Value& value) {
    for (size_t i = 0; i < count_; ++i) (*this)[i] = T(value(i));
    std::memset(static_cast<void*>(&(*this)[0] - 1), kGuard, sizeof(T));
    std::memset(static_cast<void*>(&(*this)[0] + count_), kGuard, sizeof(T));
  }
  void upload(Stream& stream) { copy_to_device(device_.data(), host_.data(), device_.bytes(), stream); }
  void download(Stream& stream) {
    copy_to_host(host_.data(), device_.data(), device_.bytes(), stream);
    synchronize(stream);
  }
  bool guarded() {
    for (const T* guard : {&(*this)[0] - 1, &(*this)[0] + count_}) {
      for (size_t i = 0; i < sizeof(T); ++i) {
        if (reinterpret_cast<const unsigned char*>(guard)[i] != kGuard) return false;
      }
    }
    return true;
  }

 private:
  static constexpr int kGuard = 0x5a;
  size_t count_;
  DeviceMemory device_;
  PinnedMemory host_;
};

// The first thing that went wrong; a check goes on after it, since the other ranks do.
class Findings {
 public:
  void add(bool fine, const std::string& what) {
    if (!fine && first_.empty()) first_ = what;
  }
  const std::string& first() const { return first_; }

 private:
  std::string first_;
};

// Collective: whether all ranks hold the same bytes on the host.
template <class T>
bool same_on_all(Communicator& ranks, Buffer<T>& buffer) {
  uint64_t hash = 1469598103934665603u;
  const auto* bytes = reinterpret_cast<const unsigned char*>(&buffer[0]);
  for (size_t i = 0; i < buffer.count() * sizeof(T); ++i) hash = (hash ^ bytes[i]) * 1099511628211u;
  std::vector<uint64_t> hashes(ranks.size());
  ranks.all_gather(std::as_bytes(std::span(&hash, 1)), std::as_writable_bytes(std::span(hashes)));
  for (uint64_t other : hashes) {
    if (other != hash) return false;
  }
  return true;
}

// The sum over ranks of their numbers, rounded to T: in float32 in rank order, and exactly with a bound for any order in which each of the
// R - 1 sums may be rounded to T, and the result once more.
struct Sum {
  float in_order;
  double exact, bound;
};
template <class T>
Sum sum_of_numbers(uint64_t seed, int ranks, uint64_t i) {
  Sum sum{};
  double magnitude = 0;
  for (int r = 0; r < ranks; ++r) {
    const float value = static_cast<float>(T(number(seed, r, i)));
    sum.in_order = r == 0 ? value : sum.in_order + value;
    sum.exact += value;
    magnitude += std::abs(value);
  }
  sum.in_order = static_cast<float>(T(sum.in_order));
  sum.bound = ranks * (sizeof(T) == 2 ? 0x1p-8 : 0x1p-24) * magnitude * 1.01;  // 1.01: the products of roundings
  return sum;
}

// Whether the buffer holds the ranks' sums of a seed; to_the_bit: in rank order.
template <class T>
void find_wrong_sums(Buffer<T>& values, uint64_t seed, int ranks, bool to_the_bit, Findings& findings) {
  for (size_t i = 0; i < values.count() && findings.first().empty(); ++i) {
    const Sum sum = sum_of_numbers<T>(seed, ranks, i);
    const float got = static_cast<float>(values[i]);
    const bool fine = to_the_bit ? got == sum.in_order : std::abs(got - sum.exact) <= sum.bound;
    findings.add(fine, fmt::format("element {} of {} is {}, expected {} +- {}", i, values.count(), got, sum.exact, to_the_bit ? 0 : sum.bound));
  }
  findings.add(values.guarded(), "wrote beyond its memory");
}

}  // namespace accrete::parallel
