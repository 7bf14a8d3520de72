// Memory of a GPU and pinned memory of its host, owned; copies on a stream. All of the project's CUDA memory is taken here, at start-up:
// ops allocate nothing. Exists in builds with CUDA (ACCRETE_CUDA); errors throw CudaError.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "kernels/stream.h"

namespace accrete {

// The calling thread's current device, from now on, and what is known of it.
struct DeviceInfo {
  std::string name;
  int index = 0;
  int compute_capability = 0;  // 90: Hopper
  int multiprocessors = 0;
  int64_t l2_bytes = 0;
  int64_t total_bytes = 0;
  std::array<char, 16> uuid{};  // whatever index a process knows it by
};
// Throws CudaError naming the driver, the index or the compute capability when this build cannot run there.
DeviceInfo use_device(int index);
// 0 when there is no driver, no GPU, or CUDA_VISIBLE_DEVICES hides them; `why` then says which.
int device_count(std::string* why = nullptr);
int64_t free_device_bytes();
// For further threads of a process that computes on the device of `use_device`.
void set_current_device(int index);

// Bytes on the current device; not initialised.
class DeviceMemory {
 public:
  DeviceMemory() = default;
  explicit DeviceMemory(size_t bytes);  // CudaError when it does not fit, saying how much was asked for and is free
  ~DeviceMemory();
  DeviceMemory(DeviceMemory&& other) noexcept;
  DeviceMemory& operator=(DeviceMemory&& other) noexcept;
  void* data() const { return data_; }
  template <class T>
  T* as() const { return static_cast<T*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// Page-locked host memory that the device copies to and from without a detour.
class PinnedMemory {
 public:
  PinnedMemory() = default;
  explicit PinnedMemory(size_t bytes);
  ~PinnedMemory();
  PinnedMemory(PinnedMemory&& other) noexcept;
  PinnedMemory& operator=(PinnedMemory&& other) noexcept;
  void* data() const { return data_; }
  template <class T>
  T* as() const { return static_cast<T*>(data_); }
  size_t bytes() const { return bytes_; }

 private:
  void* data_ = nullptr;
  size_t bytes_ = 0;
};

// A CUDA stream of its own, and the Stream that ops take.
class DeviceStream {
 public:
  DeviceStream();
  ~DeviceStream();
  DeviceStream(const DeviceStream&) = delete;
  DeviceStream& operator=(const DeviceStream&) = delete;
  Stream& stream() { return stream_; }

 private:
  Stream stream_;
};

// A point in a stream. wait() blocks the host until it is reached; elapsed_ms needs both reached.
class DeviceEvent {
 public:
  DeviceEvent();
  ~DeviceEvent();
  DeviceEvent(const DeviceEvent&) = delete;
  DeviceEvent& operator=(const DeviceEvent&) = delete;
  void record(Stream& stream);
  void wait();
  bool reached() const;
  float elapsed_ms_since(const DeviceEvent& start) const;

 private:
  void* event_ = nullptr;
};

// Enqueued on the stream; host memory should be pinned, and must live until the copy is done.
void copy_to_device(void* to, const void* from, size_t bytes, Stream& stream);
void copy_to_host(void* to, const void* from, size_t bytes, Stream& stream);
void copy_on_device(void* to, const void* from, size_t bytes, Stream& stream);
void fill_device(void* to, int byte, size_t bytes, Stream& stream);
// Until everything enqueued is done; throws what failed there.
void synchronize(Stream& stream);

}  // namespace accrete
