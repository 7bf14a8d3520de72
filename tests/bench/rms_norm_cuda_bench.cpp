// rms_norm_cuda: bytes moved a second, beside a device-to-device copy of as many bytes in the same run (the limit of a
// memory-bound kernel). Arguments: tokens, width. Residual addition included: x and delta read, x and y written.
#if defined(ACCRETE_CUDA)

#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/cuda.h"
#include "kernels/norm/rms_norm.h"

namespace accrete {
namespace {

constexpr int kLaunches = 20;  // in a row between two events: one launch alone would measure the events

class DeviceBuffer {
 public:
  explicit DeviceBuffer(const std::vector<bf16>& values) {
    ACCRETE_CUDA_CHECK(cudaMalloc(&data_, values.size() * sizeof(bf16)));
    ACCRETE_CUDA_CHECK(cudaMemcpy(data_, values.data(), values.size() * sizeof(bf16), cudaMemcpyHostToDevice));
  }
  DeviceBuffer(const DeviceBuffer&) = delete;
  DeviceBuffer& operator=(const DeviceBuffer&) = delete;
  ~DeviceBuffer() { cudaFree(data_); }
  bf16* data() { return static_cast<bf16*>(data_); }

 private:
  void* data_ = nullptr;
};

// Seconds of one of kLaunches calls of `launch`.
template <class Launch>
double seconds(Launch launch) {
  cudaEvent_t begin, end;
  ACCRETE_CUDA_CHECK(cudaEventCreate(&begin));
  ACCRETE_CUDA_CHECK(cudaEventCreate(&end));
  launch();
  ACCRETE_CUDA_CHECK(cudaEventRecord(begin));
  for (int i = 0; i < kLaunches; ++i) launch();
  ACCRETE_CUDA_CHECK(cudaEventRecord(end));
  ACCRETE_CUDA_CHECK(cudaEventSynchronize(end));
  float milliseconds = 0;
  ACCRETE_CUDA_CHECK(cudaEventElapsedTime(&milliseconds, begin, end));
  cudaEventDestroy(begin);
  cudaEventDestroy(end);
  return 1e-3 * milliseconds / kLaunches;
}

std::vector<bf16> random_values(int64_t count) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  std::vector<bf16> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = i < 65537 ? bf16(normal(random)) : values[i - 65537];
  return values;
}

void rms_norm_cuda_bf16(benchmark::State& state) {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return state.SkipWithError("no CUDA device");
  const int64_t tokens = state.range(0), width = state.range(1), count = tokens * width;
  const auto values = random_values(count);
  DeviceBuffer x(values), delta(values), y(values), weight(random_values(width));
  RmsNorm op;
  op.x = View<bf16, 2>(x.data(), {tokens, width});
  op.delta = View<bf16, 2>(delta.data(), {tokens, width});
  op.weight = View<bf16, 1>(weight.data(), {width});
  op.y = View<bf16, 2>(y.data(), {tokens, width});
  Stream stream;
  double norm = 0, copy = 0;
  int rounds = 0;
  for (auto _ : state) {
    const double once = seconds([&] { rms_norm_cuda(op, stream); });
    // Twice x to y: as many bytes read and written as the op's.
    copy += seconds([&] {
      ACCRETE_CUDA_CHECK(cudaMemcpyAsync(y.data(), x.data(), count * sizeof(bf16), cudaMemcpyDeviceToDevice));
      ACCRETE_CUDA_CHECK(cudaMemcpyAsync(y.data(), delta.data(), count * sizeof(bf16), cudaMemcpyDeviceToDevice));
    });
    norm += once;
    ++rounds;
    state.SetIterationTime(once);
  }
  const double bytes = 4.0 * count * sizeof(bf16) + width * sizeof(bf16);
  state.counters["GB/s"] = bytes * rounds / norm * 1e-9;
  state.counters["copy GB/s"] = 4.0 * count * sizeof(bf16) * rounds / copy * 1e-9;
  state.counters["% of copy"] = 100 * copy / norm;
}
BENCHMARK(rms_norm_cuda_bf16)->ArgNames({"tokens", "width"})->UseManualTime()->Iterations(10)->Unit(benchmark::kMicrosecond)
    ->Args({65536, 4096})->Args({32768, 8192})->Args({65536, 5120})->Args({8192, 4096})->Args({256, 4096})->Args({8, 4096});

}  // namespace
}  // namespace accrete

#endif
