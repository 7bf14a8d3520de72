#include "kernels/cuda.h"
#include "kernels/embedding/embedding.h"

namespace accrete {
namespace {

constexpr int kThreads = 256;

// Grid: a block a row. Rows are moved in words of kBytes.
template <class Word>
__global__ void __launch_bounds__(kThreads) embedding_kernel(const int32_t* ids, const Word* table, Word* y, int width, int64_t vocab_begin, int64_t vocab) {
  const int64_t id = ids[blockIdx.x] - vocab_begin;
  Word* to = y + static_cast<int64_t>(blockIdx.x) * width;
  const bool mine = id >= 0 && id < vocab;
  for (int i = threadIdx.x; i < width; i += kThreads) to[i] = mine ? table[id * width + i] : Word{};
}

}  // namespace

void embedding_cuda(const Embedding& op, Stream& stream) {
  const int64_t rows = op.ids.shape[0], width = op.table.shape[1];
  CHECK(op.table.dtype == op.y.dtype && op.y.shape[1] == width && op.y.shape[0] == rows, name_of(op.table.dtype), name_of(op.y.dtype), op.y.shape[0], rows);
  CHECK(op.table.stride[0] == width && op.y.stride[0] == width, op.table.stride[0], op.y.stride[0]);
  if (rows == 0) return;
  const int64_t bytes = width * static_cast<int64_t>(size_of(op.y.dtype));
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  const unsigned blocks = static_cast<unsigned>(rows);
  if (bytes % sizeof(uint4) == 0) {
    embedding_kernel<uint4><<<blocks, kThreads, 0, cuda>>>(op.ids.data, static_cast<const uint4*>(op.table.data), static_cast<uint4*>(op.y.data),
                                                           static_cast<int>(bytes / sizeof(uint4)), op.vocab_begin, op.table.shape[0]);
  } else {
    embedding_kernel<uint16_t><<<blocks, kThreads, 0, cuda>>>(op.ids.data, static_cast<const uint16_t*>(op.table.data), static_cast<uint16_t*>(op.y.data),
                                                              static_cast<int>(bytes / sizeof(uint16_t)), op.vocab_begin, op.table.shape[0]);
  }
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete
