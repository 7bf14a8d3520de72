#include "kernels/cuda.h"
#include "kernels/rope/rope_angles.h"

namespace accrete {
namespace {

constexpr int kThreads = 256;

struct AngleArgs {
  const int32_t* position;  // [T]
  const double* inv_freq;   // [D/2]
  float* cos;               // [T, D/2]
  float* sin;
  int64_t count;            // T * D/2
  int half;                 // D/2
};

__global__ void __launch_bounds__(kThreads) rope_angles_kernel(const AngleArgs a) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= a.count) return;
  double sin_value, cos_value;
  sincos(a.position[i / a.half] * a.inv_freq[i % a.half], &sin_value, &cos_value);
  a.cos[i] = static_cast<float>(cos_value);
  a.sin[i] = static_cast<float>(sin_value);
}

}  // namespace

void rope_angles_cuda(const RopeAngles& op, Stream& stream) {
  const int64_t half = op.inv_freq.shape[0], count = op.position.shape[0] * half;
  CHECK(op.cos.shape[1] == half && op.sin.shape[1] == half && op.cos.shape[0] == op.position.shape[0], op.cos.shape[0], op.cos.shape[1], half);
  if (count == 0) return;
  const unsigned blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  const AngleArgs args{op.position.data, op.inv_freq.data, op.cos.data, op.sin.data, count, static_cast<int>(half)};
  rope_angles_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(args);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete
