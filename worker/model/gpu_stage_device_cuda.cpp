#include "worker/model/gpu_stage_device.h"

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <vector>

#include "kernels/check.h"
#include "kernels/dummy/dummy_values.h"
#include "kernels/gemm/quantize_fp8.h"

namespace accrete::worker {
namespace {

// One reader's buffers: a job's values in pinned memory, and on the device where they still have to be rounded.
struct Staging {
  explicit Staging(size_t bytes) : pinned(bytes), device(bytes) {}
  PinnedMemory pinned;
  DeviceMemory device;
  DeviceStream stream;
};

// Bytes of a job's values as they are read.
int64_t read_bytes(const ShardReader::Job& job) {
  return job.elements() * static_cast<int64_t>(size_of(job.dtype == DType::fp8 ? DType::bf16 : job.dtype));
}

class Loader {
 public:
  Loader(const ShardReader& reader, std::byte* block, int device) : reader_(reader), block_(block), device_(device) {
    for (const ShardReader::Job& job : reader.jobs()) most_ = std::max(most_, read_bytes(job));
  }

  // One job, by the calling thread.
  void run(const ShardReader::Job& job) {
    set_current_device(device_);
    std::unique_ptr<Staging> staging = borrow();
    load(job, *staging);
    synchronize(staging->stream.stream());
    give_back(std::move(staging));
  }

 private:
  void load(const ShardReader::Job& job, Staging& staging) {
    Stream& stream = staging.stream.stream();
    const int64_t rows = job.slice.rows(), columns = job.slice.columns();
    const bool rounds = job.dtype == DType::fp8;
    std::byte* to = rounds ? staging.device.as<std::byte>() : block_ + job.offset;
    const View<bf16, 2> values(reinterpret_cast<bf16*>(to), {rows, columns});
    const std::optional<uint64_t> key = job.dtype == DType::f32 ? std::nullopt : reader_.source().dummy_key(job.name);
    if (key) {
      dummy_fill_cuda({*key, job.slice.row_begin, job.slice.column_begin, values}, stream);
    } else {
      reader_.source().read(job.name, job.slice, rounds ? DType::bf16 : job.dtype, staging.pinned.data());
      copy_to_device(to, staging.pinned.data(), read_bytes(job), stream);
    }
    if (!rounds) return;
    const View<fp8, 2> rounded(reinterpret_cast<fp8*>(block_ + job.offset), {rows, columns});
    const View<float, 1> scale(reinterpret_cast<float*>(block_ + job.scale_offset), {rows});
    quantize_weights_fp8_cuda({values, rounded, scale}, stream);
  }

  std::unique_ptr<Staging> borrow() {
    {
      const std::lock_guard lock(mutex_);
      if (!spare_.empty()) {
        std::unique_ptr<Staging> staging = std::move(spare_.back());
        spare_.pop_back();
        return staging;
      }
    }
    return std::make_unique<Staging>(static_cast<size_t>(most_));
  }
  void give_back(std::unique_ptr<Staging> staging) {
    const std::lock_guard lock(mutex_);
    spare_.push_back(std::move(staging));
  }

  const ShardReader& reader_;
  std::byte* block_;
  int device_;
  int64_t most_ = 0;  // bytes of the largest job
  std::mutex mutex_;
  std::vector<std::unique_ptr<Staging>> spare_;  // at most one a thread
};

}  // namespace

GpuStageDevice::GpuStageDevice(int index, int readers)
    : info_(use_device(index)), readers_(std::max(1, readers)), stream_(std::make_unique<DeviceStream>()), plans_(std::make_unique<GemmPlans>()) {
  stream().gemm = plans_.get();
}

void GpuStageDevice::start_trace() {
  trace_ = std::make_unique<OpTrace>();
  stream().trace = trace_.get();
}

DeviceBytes GpuStageDevice::allocate(int64_t bytes) {
  auto memory = std::make_shared<DeviceMemory>(static_cast<size_t>(bytes));
  fill_device(memory->data(), 0, static_cast<size_t>(bytes), stream());
  synchronize(stream());
  return DeviceBytes(memory, memory->as<std::byte>());
}

void GpuStageDevice::randomize(const AnyView<2>& values) { dummy_fill_cuda({0, 0, 0, values.as<bf16>(), 1.0f / kDummyDeviation}, stream()); }

void GpuStageDevice::upload(void* to, const void* from, int64_t bytes) {
  copy_to_device(to, from, static_cast<size_t>(bytes), stream());
  synchronize(stream());
}

void GpuStageDevice::load(const ShardReader& reader, std::byte* block, const LoadProgress& progress) {
  int64_t total = 0, done = 0;
  for (const ShardReader::Job& job : reader.jobs()) total += job.bytes();
  Loader loader(reader, block, info_.index);
  std::mutex mutex;  // of done and error, and so that progress is called by one thread at a time
  std::exception_ptr error;
  std::atomic<bool> failed{false};  // relaxed: only saves work, the error itself is read after the join
  ThreadPool pool(readers_);
  pool.run(static_cast<int64_t>(reader.jobs().size()), [&](int64_t index) {
    if (failed.load(std::memory_order_relaxed)) return;
    const ShardReader::Job& job = reader.jobs()[index];
    try {
      loader.run(job);
      const std::lock_guard lock(mutex);
      done += job.bytes();
      if (progress) progress(done, total);
    } catch (...) {
      const std::lock_guard lock(mutex);
      if (!error) error = std::current_exception();
      failed.store(true, std::memory_order_relaxed);
    }
  });
  if (error) std::rethrow_exception(error);
}

}  // namespace accrete::worker
