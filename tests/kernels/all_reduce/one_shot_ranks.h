// All ranks of a one-shot all-reduce in one process, for its tests: on the CPU by the reference, on CUDA as streams of one GPU that see
// each other's memory without further ado. One thread launches every rank's kernels, which then wait for each other on the device.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "kernels/all_reduce/one_shot.h"
#include "tests/kernels/op_devices.h"
#if defined(ACCRETE_CUDA)
#include "kernels/device/device_graph.h"
#include "kernels/device/device_memory.h"
#endif

namespace accrete {

class CpuRanks {
 public:
  static constexpr const char* kName = "cpu";
  static std::optional<std::string> unavailable() { return std::nullopt; }
  template <class T>
  using Memory = CpuDevice::Memory<T>;

  explicit CpuRanks(int) {}
  void sum(const std::vector<OneShotSum>& ops) { one_shot_sum_cpu(ops, device_.stream()); }
  void norm(const std::vector<RmsNorm>& ops) { one_shot_norm_cpu(ops, device_.stream()); }

 private:
  CpuDevice device_;
};

#if defined(ACCRETE_CUDA)
class CudaRanks {
 public:
  static constexpr const char* kName = "cuda";
  static std::optional<std::string> unavailable() { return CudaDevice::unavailable(); }
  template <class T>
  using Memory = CudaDevice::Memory<T>;

  explicit CudaRanks(int size, size_t capacity = 64 << 10, uint64_t patience_ns = 10'000'000'000) {
    one_shot_load_cuda(size);
    for (int r = 0; r < size; ++r) ranks_.push_back(std::make_unique<Rank>(capacity));
    for (int r = 0; r < size; ++r) {
      OneShotRef& ref = ranks_[r]->ref;
      ref.rank = r;
      ref.size = size;
      ref.capacity = capacity;
      ref.patience_ns = patience_ns;
      for (int peer = 0; peer < size; ++peer) {
        ref.staged[peer] = ranks_[peer]->staged.as<std::byte>();
        ref.arrived[peer] = ranks_[peer]->arrived.as<uint64_t>();
      }
      ref.state = ranks_[r]->state.as<OneShotState>();
      ref.report = ranks_[r]->report.as<OneShotReport>();
    }
  }

  void sum(const std::vector<OneShotSum>& ops) {
    for (size_t r = 0; r < ops.size(); ++r) one_shot_sum_cuda(ops[r], ranks_[r]->ref, stream(r));
  }
  void norm(const std::vector<RmsNorm>& ops) {
    for (size_t r = 0; r < ops.size(); ++r) one_shot_norm_cuda(ops[r], ranks_[r]->ref, stream(r));
  }
  const OneShotRef& ref(size_t rank) const { return ranks_[rank]->ref; }
  Stream& stream(size_t rank) { return ranks_[rank]->stream.stream(); }
  OneShotReport& report(size_t rank) { return *ranks_[rank]->ref.report; }
  bool broken(size_t rank) { return __atomic_load_n(&report(rank).broken, __ATOMIC_ACQUIRE) != 0; }

 private:
  struct Rank {
    explicit Rank(size_t capacity) : staged(2 * capacity), arrived(kOneShotFlagBytes), state(sizeof(OneShotState)), report(sizeof(OneShotReport)) {
      fill_device(arrived.data(), 0, arrived.bytes(), stream.stream());
      fill_device(state.data(), 0, state.bytes(), stream.stream());
      *report.as<OneShotReport>() = {};
      synchronize(stream.stream());
    }
    DeviceStream stream;
    DeviceMemory staged, arrived, state;
    PinnedMemory report;
    OneShotRef ref;
  };
  std::vector<std::unique_ptr<Rank>> ranks_;
};
#endif

}  // namespace accrete
