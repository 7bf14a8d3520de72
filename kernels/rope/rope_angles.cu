#include "kernels/cuda.h"
#include "kernels/rope/rope_angles.h"

namespace accrete {
namespace {

constexpr int kThreads = 256;

__global__ void __launch_bounds__(kThreads) rope_angles_kernel(const int32_t* position, const double* inv_freq, float* cos_out, float* sin_out, int64_t count, int half) {
  const int64_t i = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= count) return;
  double sin_value, cos_value;
  sincos(position[i / half] * inv_freq[i % half], &sin_value, &cos_value);
  cos_out[i] = static_cast<float>(cos_value);
  sin_out[i] = static_cast<float>(sin_value);
}

}  // namespace

void rope_angles_cuda(const RopeAngles& op, Stream& stream) {
  const int64_t half = op.inv_freq.shape[0], count = op.position.shape[0] * half;
  CHECK(op.cos.shape[1] == half && op.sin.shape[1] == half && op.cos.shape[0] == op.position.shape[0], op.cos.shape[0], op.cos.shape[1], half);
  if (count == 0) return;
  const unsigned blocks = static_cast<unsigned>((count + kThreads - 1) / kThreads);
  rope_angles_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(op.position.data, op.inv_freq.data, op.cos.data, op.sin.data, count,
                                                                                     static_cast<int>(half));
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete
