// The devices an op's typed test runs on: one body, {cpu, cuda} x {f32, bf16}. A device hands out memory that its ops can
// read, runs work, and copies back; the CUDA one says why it cannot when there is no GPU.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "kernels/stream.h"
#include "kernels/thread_pool.h"
#if defined(ACCRETE_CUDA)
#include "kernels/cuda.h"
#endif

namespace accrete {

class CpuDevice {
 public:
  static constexpr const char* kName = "cpu";
  static std::optional<std::string> unavailable() { return std::nullopt; }

  template <class T>
  class Memory {
   public:
    explicit Memory(const std::vector<T>& values) : values_(values) {}
    T* data() { return values_.data(); }
    std::vector<T> read() { return values_; }

   private:
    std::vector<T> values_;
  };

  Stream& stream() { return stream_; }

 private:
  ThreadPool pool_{2};
  Stream stream_{&pool_};
};

#if defined(ACCRETE_CUDA)
class CudaDevice {
 public:
  static constexpr const char* kName = "cuda";
  static std::optional<std::string> unavailable() {
    int count = 0;
    const cudaError_t result = cudaGetDeviceCount(&count);
    if (result != cudaSuccess) return std::string("no CUDA device: ") + cudaGetErrorString(result);
    if (count == 0) return "no CUDA device";
    return std::nullopt;
  }

  template <class T>
  class Memory {
   public:
    explicit Memory(const std::vector<T>& values) : size_(values.size()) {
      ACCRETE_CUDA_CHECK(cudaMalloc(reinterpret_cast<void**>(&data_), size_ * sizeof(T) + 1));
      ACCRETE_CUDA_CHECK(cudaMemcpy(data_, values.data(), size_ * sizeof(T), cudaMemcpyHostToDevice));
      ACCRETE_CUDA_CHECK(cudaDeviceSynchronize());  // a copy from pageable memory may return before it has arrived, and streams do not wait
    }
    Memory(const Memory&) = delete;
    Memory& operator=(const Memory&) = delete;
    ~Memory() { cudaFree(data_); }
    T* data() { return data_; }
    // After all work in flight.
    std::vector<T> read() {
      std::vector<T> values(size_);
      ACCRETE_CUDA_CHECK(cudaDeviceSynchronize());
      ACCRETE_CUDA_CHECK(cudaMemcpy(values.data(), data_, size_ * sizeof(T), cudaMemcpyDeviceToHost));
      return values;
    }

   private:
    T* data_ = nullptr;
    size_t size_;
  };

  CudaDevice() { ACCRETE_CUDA_CHECK(cudaStreamCreateWithFlags(&cuda_, cudaStreamNonBlocking)); }
  CudaDevice(const CudaDevice&) = delete;
  CudaDevice& operator=(const CudaDevice&) = delete;
  ~CudaDevice() { cudaStreamDestroy(cuda_); }
  Stream& stream() {
    stream_.cuda = cuda_;
    return stream_;
  }

 private:
  cudaStream_t cuda_ = nullptr;
  Stream stream_;
};
#endif

}  // namespace accrete
