#include "kernels/embedding/embedding.h"

#include <algorithm>

#include "kernels/thread_pool.h"

namespace accrete {
namespace {

constexpr int64_t kGrainElements = 1 << 14;  // below this a fork costs more than the copy

template <class Table, class Out>
void copy_rows(const Embedding& op, ThreadPool& pool) {
  const View<const Table, 2> table = op.table.as<const Table>();  // [V_local, E]
  const View<Out, 2> y = op.y.as<Out>();                          // [T, E]
  const int64_t width = y.shape[1];
  const int64_t grain = std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, width));
  pool.run_ranges(y.shape[0], grain, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = op.ids(t) - op.vocab_begin;
      Out* out = &y(t, 0);
      if (row < 0 || row >= table.shape[0]) {
        std::fill(out, out + width, Out());
        continue;
      }
      const Table* in = &table(row, 0);
      for (int64_t e = 0; e < width; ++e) out[e] = static_cast<Out>(static_cast<float>(in[e]));
    }
  });
}

template <class Table>
void copy_rows_to(const Embedding& op, ThreadPool& pool) {
  if (op.y.dtype == DType::bf16) return copy_rows<Table, bf16>(op, pool);
  copy_rows<Table, float>(op, pool);
}

}  // namespace

void embedding_cpu(const Embedding& op, Stream& stream) {
  CHECK(op.ids.shape[0] == op.y.shape[0], op.ids.shape[0], op.y.shape[0]);
  CHECK(op.table.shape[1] == op.y.shape[1], op.table.shape[1], op.y.shape[1]);
  CHECK(op.table.stride[1] == 1 && op.y.stride[1] == 1, op.table.stride[1], op.y.stride[1]);
  if (op.table.dtype == DType::bf16) return copy_rows_to<bf16>(op, *stream.pool);
  copy_rows_to<float>(op, *stream.pool);
}

}  // namespace accrete
