// StageDevice: where a stage computes and keeps its memory: the CPU or one GPU. Owned by the rank's executor (tests: by the test), used by
// its step thread; outlives the stage.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/backend.h"
#include "kernels/thread_pool.h"
#include "worker/model/shard_reader.h"

namespace accrete::worker {

using DeviceBytes = std::shared_ptr<std::byte>;
using LoadProgress = std::function<void(int64_t done, int64_t total)>;  // bytes of weights; may be empty

class StageDevice {
 public:
  virtual ~StageDevice() = default;
  virtual const Backend& backend() const = 0;
  virtual Stream& stream() = 0;
  virtual DType activation_dtype() const = 0;
  // Of a GPU; 0: attention needs no plan of who reads what.
  virtual int multiprocessors() const { return 0; }
  // Zeroed memory of the device; throws when it does not fit.
  virtual DeviceBytes allocate(int64_t bytes) = 0;
  // From host memory, done when it returns.
  virtual void upload(void* to, const void* from, int64_t bytes) = 0;
  // Reads what is planned into `block` of the device; throws as ShardReader::read.
  virtual void load(const ShardReader& reader, std::byte* block, const LoadProgress& progress) = 0;
};

class CpuStageDevice : public StageDevice {
 public:
  explicit CpuStageDevice(ThreadPool& pool) : pool_(pool), stream_{.pool = &pool} {}
  const Backend& backend() const override { return cpu_backend(); }
  Stream& stream() override { return stream_; }
  DType activation_dtype() const override { return DType::f32; }
  DeviceBytes allocate(int64_t bytes) override;
  void upload(void* to, const void* from, int64_t bytes) override;
  void load(const ShardReader& reader, std::byte* block, const LoadProgress& progress) override { reader.read(block, pool_, progress); }

 private:
  ThreadPool& pool_;
  Stream stream_;
};

}  // namespace accrete::worker
