#include "kernels/cuda.h"
#include "kernels/embedding/embedding.h"

namespace accrete {
namespace {

constexpr int kThreads = 256;

// What the kernel is told; rows are moved in words.
template <class Word>
struct Rows {
  const int32_t* ids;  // [T]
  const Word* table;   // [V_local, width]
  Word* y;             // [T, width]
  int width;           // of a row, in words
  int64_t vocab_begin, vocab;
};

// Grid: a block a row.
template <class Word>
__global__ void __launch_bounds__(kThreads) embedding_kernel(const Rows<Word> rows) {
  const int64_t id = rows.ids[blockIdx.x] - rows.vocab_begin;
  Word* to = rows.y + static_cast<int64_t>(blockIdx.x) * rows.width;
  const bool mine = id >= 0 && id < rows.vocab;
  for (int i = threadIdx.x; i < rows.width; i += kThreads) to[i] = mine ? rows.table[id * rows.width + i] : Word{};
}

template <class Word>
void launch(const Embedding& op, int64_t row_bytes, cudaStream_t stream) {
  const auto* table = static_cast<const Word*>(op.table.data);
  const Rows<Word> rows{op.ids.data, table, static_cast<Word*>(op.y.data), static_cast<int>(row_bytes / sizeof(Word)), op.vocab_begin, op.table.shape[0]};
  embedding_kernel<Word><<<static_cast<unsigned>(op.ids.shape[0]), kThreads, 0, stream>>>(rows);
}

}  // namespace

void embedding_cuda(const Embedding& op, Stream& stream) {
  const int64_t rows = op.ids.shape[0], width = op.table.shape[1];
  CHECK(op.table.dtype == op.y.dtype && op.y.shape[1] == width && op.y.shape[0] == rows, name_of(op.table.dtype), name_of(op.y.dtype), op.y.shape[0], rows);
  CHECK(op.table.stride[0] == width && op.y.stride[0] == width, op.table.stride[0], op.y.stride[0]);
  if (rows == 0) return;
  const int64_t bytes = width * static_cast<int64_t>(size_of(op.y.dtype));
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  if (bytes % sizeof(uint4) == 0) launch<uint4>(op, bytes, cuda);
  else launch<uint16_t>(op, bytes, cuda);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete
