// Memory-bound: every logit is read and written once.
#include <algorithm>

#include "kernels/cuda.h"
#include "kernels/sampling/join_logits.h"

namespace accrete {
namespace {

constexpr int kThreads = 256;

struct Args {
  const float* parts;  // [R, n, width]
  float* logits;       // [n, V]
  int64_t rows, width, vocab;
  int32_t begin[kMostVocabularyShards + 1];
};

// Grid: [rows, width / kThreads, shards].
__global__ void __launch_bounds__(kThreads) join_kernel(const Args a) {
  const int64_t r = blockIdx.z, row = blockIdx.x, column = static_cast<int64_t>(blockIdx.y) * kThreads + threadIdx.x;
  if (column >= a.begin[r + 1] - a.begin[r]) return;
  a.logits[row * a.vocab + a.begin[r] + column] = a.parts[(r * a.rows + row) * a.width + column];
}

}  // namespace

void join_logits_cuda(const JoinLogits& op, Stream& stream) {
  const int64_t shards = op.parts.shape[0], rows = op.logits.shape[0];
  CHECK(shards <= kMostVocabularyShards && op.begin[shards] == op.logits.shape[1], shards, op.begin[shards], op.logits.shape[1]);
  CHECK(op.parts.shape[1] == rows, op.parts.shape[1], rows);
  if (rows == 0) return;
  Args args{op.parts.data, op.logits.data, rows, op.parts.shape[2], op.logits.shape[1], {}};
  std::copy(op.begin.begin(), op.begin.end(), args.begin);
  const dim3 grid(static_cast<unsigned>(rows), static_cast<unsigned>((op.parts.shape[2] + kThreads - 1) / kThreads), static_cast<unsigned>(shards));
  join_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(args);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete
