#include <algorithm>

#include "kernels/cuda.h"
#include "kernels/dummy/dummy_values.h"

namespace accrete {
namespace {

constexpr int kThreads = 256;
constexpr unsigned kMostBlocks = 65535;

struct Args {
  uint64_t tensor;
  int64_t row_begin, column_begin, rows, columns;
  bf16* y;
};

// Grid: a block a row, rows beyond the grid by the same blocks again.
__global__ void __launch_bounds__(kThreads) dummy_fill_kernel(const Args a) {
  for (int64_t row = blockIdx.x; row < a.rows; row += gridDim.x) {
    const uint64_t key = dummy_row_key(a.tensor, a.row_begin + row);
    for (int64_t j = threadIdx.x; j < a.columns; j += kThreads) {
      a.y[row * a.columns + j] = bf16(dummy_value(key, static_cast<uint32_t>(a.column_begin + j)));
    }
  }
}

}  // namespace

void dummy_fill_cuda(const DummyFill& op, Stream& stream) {
  const int64_t rows = op.y.shape[0], columns = op.y.shape[1];
  CHECK(op.y.stride[0] == columns || rows <= 1, op.y.stride[0], columns);
  if (rows == 0 || columns == 0) return;
  const Args args{op.tensor, op.row_begin, op.column_begin, rows, columns, op.y.data};
  dummy_fill_kernel<<<static_cast<unsigned>(std::min<int64_t>(rows, kMostBlocks)), kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(args);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete
