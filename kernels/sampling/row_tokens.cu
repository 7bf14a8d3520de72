#include "kernels/cuda.h"
#include "kernels/sampling/row_tokens.h"

namespace accrete {
namespace {

constexpr int kThreads = 256;

struct ReadArgs {
  int32_t* ids;
  const int32_t* sequence;
  const int32_t* row;
  const int32_t* row_token;
  int count;
};

__global__ void __launch_bounds__(kThreads) read_kernel(const ReadArgs a) {
  const int t = blockIdx.x * kThreads + threadIdx.x;
  if (t >= a.count || a.ids[t] >= 0) return;
  const int row = a.row[a.sequence[t]];
  if (row >= 0) a.ids[t] = a.row_token[row];
}

struct WriteArgs {
  const int32_t* token;
  const int32_t* row;
  int32_t* row_token;
  int count;
};

__global__ void __launch_bounds__(kThreads) write_kernel(const WriteArgs a) {
  const int i = blockIdx.x * kThreads + threadIdx.x;
  if (i < a.count && a.row[i] >= 0) a.row_token[a.row[i]] = a.token[i];
}

unsigned blocks_of(int64_t count) { return static_cast<unsigned>((count + kThreads - 1) / kThreads); }

}  // namespace

void read_row_tokens_cuda(const ReadRowTokens& op, Stream& stream) {
  const int64_t count = op.ids.shape[0];
  CHECK(op.sequence.shape[0] == count && op.row_token, op.sequence.shape[0], count);
  if (count == 0) return;
  const ReadArgs args{op.ids.data, op.sequence.data, op.row.data, op.row_token, static_cast<int>(count)};
  read_kernel<<<blocks_of(count), kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(args);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

void write_row_tokens_cuda(const WriteRowTokens& op, Stream& stream) {
  const int64_t count = op.token.shape[0];
  CHECK(op.row.shape[0] == count && op.row_token, op.row.shape[0], count);
  if (count == 0) return;
  const WriteArgs args{op.token.data, op.row.data, op.row_token, static_cast<int>(count)};
  write_kernel<<<blocks_of(count), kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(args);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete
