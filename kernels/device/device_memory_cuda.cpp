#include <fmt/format.h>

#include <cstring>
#include <utility>

#include "kernels/cuda.h"
#include "kernels/device/device_memory.h"

namespace accrete {
namespace {

constexpr int kBuiltFor = 90;  // compute capability of the code in this build (sm_90a runs on 9.0 alone)

cudaStream_t cuda_of(Stream& stream) { return static_cast<cudaStream_t>(stream.cuda); }

}  // namespace

int device_count(std::string* why) {
  int count = 0;
  const cudaError_t result = cudaGetDeviceCount(&count);
  if (result == cudaSuccess && count > 0) return count;
  cudaGetLastError();  // not an error of the next call
  if (why) *why = result == cudaSuccess ? "no GPU is visible" : cudaGetErrorString(result);
  return 0;
}

DeviceInfo use_device(int index) {
  std::string why;
  const int count = device_count(&why);
  if (count == 0) throw CudaError(fmt::format("no CUDA device: {}; check nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu", why));
  if (index >= count) throw CudaError(fmt::format("GPU {} is wanted and {} are visible; check CUDA_VISIBLE_DEVICES and the ranks on this host", index, count));
  cudaDeviceProp properties;
  ACCRETE_CUDA_CHECK(cudaGetDeviceProperties(&properties, index));
  const int capability = properties.major * 10 + properties.minor;
  if (capability != kBuiltFor) {
    throw CudaError(fmt::format("GPU {} ({}) has compute capability {}.{}; this build is for 9.0 (H100, H200)", index, properties.name,
                                properties.major, properties.minor));
  }
  ACCRETE_CUDA_CHECK(cudaSetDevice(index));
  DeviceInfo info{properties.name, index, capability, properties.multiProcessorCount, properties.l2CacheSize, static_cast<int64_t>(properties.totalGlobalMem), {}};
  static_assert(sizeof(properties.uuid.bytes) == sizeof(info.uuid));
  std::memcpy(info.uuid.data(), properties.uuid.bytes, sizeof(info.uuid));
  return info;
}

int64_t free_device_bytes() {
  size_t free = 0, total = 0;
  ACCRETE_CUDA_CHECK(cudaMemGetInfo(&free, &total));
  return static_cast<int64_t>(free);
}

void set_current_device(int index) { ACCRETE_CUDA_CHECK(cudaSetDevice(index)); }

DeviceMemory::DeviceMemory(size_t bytes) : bytes_(bytes) {
  if (bytes == 0) return;
  if (cudaMalloc(&data_, bytes) == cudaSuccess) return;
  cudaGetLastError();
  throw CudaError(fmt::format("GPU memory: {} bytes do not fit, {} are free; lower --gpu-memory-utilization, --max-num-seqs or --max-num-batched-tokens",
                              bytes, free_device_bytes()));
}
DeviceMemory::~DeviceMemory() {
  if (data_) cudaFree(data_);
}
DeviceMemory::DeviceMemory(DeviceMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
DeviceMemory& DeviceMemory::operator=(DeviceMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

PinnedMemory::PinnedMemory(size_t bytes) : bytes_(bytes) {
  if (bytes > 0) ACCRETE_CUDA_CHECK(cudaMallocHost(&data_, bytes));
}
PinnedMemory::~PinnedMemory() {
  if (data_) cudaFreeHost(data_);
}
PinnedMemory::PinnedMemory(PinnedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(std::exchange(other.bytes_, 0)) {}
PinnedMemory& PinnedMemory::operator=(PinnedMemory&& other) noexcept {
  std::swap(data_, other.data_);
  std::swap(bytes_, other.bytes_);
  return *this;
}

DeviceStream::DeviceStream() {
  cudaStream_t stream = nullptr;
  ACCRETE_CUDA_CHECK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
  stream_.cuda = stream;
}
DeviceStream::~DeviceStream() { cudaStreamDestroy(cuda_of(stream_)); }

DeviceEvent::DeviceEvent() {
  cudaEvent_t event = nullptr;
  ACCRETE_CUDA_CHECK(cudaEventCreate(&event));
  event_ = event;
}
DeviceEvent::~DeviceEvent() { cudaEventDestroy(static_cast<cudaEvent_t>(event_)); }
void DeviceEvent::record(Stream& stream) { ACCRETE_CUDA_CHECK(cudaEventRecord(static_cast<cudaEvent_t>(event_), cuda_of(stream))); }
void DeviceEvent::wait() { ACCRETE_CUDA_CHECK(cudaEventSynchronize(static_cast<cudaEvent_t>(event_))); }
bool DeviceEvent::reached() const {
  const cudaError_t result = cudaEventQuery(static_cast<cudaEvent_t>(event_));
  if (result == cudaErrorNotReady) return false;
  ACCRETE_CUDA_CHECK(result);
  return true;
}
float DeviceEvent::elapsed_ms_since(const DeviceEvent& start) const {
  float ms = 0;
  ACCRETE_CUDA_CHECK(cudaEventElapsedTime(&ms, static_cast<cudaEvent_t>(start.event_), static_cast<cudaEvent_t>(event_)));
  return ms;
}

void copy_to_device(void* to, const void* from, size_t bytes, Stream& stream) {
  if (bytes > 0) ACCRETE_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyHostToDevice, cuda_of(stream)));
}
void copy_to_host(void* to, const void* from, size_t bytes, Stream& stream) {
  if (bytes > 0) ACCRETE_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToHost, cuda_of(stream)));
}
void copy_on_device(void* to, const void* from, size_t bytes, Stream& stream) {
  if (bytes > 0) ACCRETE_CUDA_CHECK(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDeviceToDevice, cuda_of(stream)));
}
void fill_device(void* to, int byte, size_t bytes, Stream& stream) {
  if (bytes > 0) ACCRETE_CUDA_CHECK(cudaMemsetAsync(to, byte, bytes, cuda_of(stream)));
}
void synchronize(Stream& stream) { ACCRETE_CUDA_CHECK(cudaStreamSynchronize(cuda_of(stream))); }

}  // namespace accrete
