#include "kernels/cuda.h"
#include "kernels/paging/take_page.cuh"
#include "tests/cache/slot_source.h"

namespace accrete::cache {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 128;
constexpr int kWarps = kThreads / kWarp;

__device__ int32_t take_pages(const SlotSource& source, int32_t count, int32_t* ids) {
  if (source.bulk) {
    const TicketRange taken = take_tickets(source.pool, count);
    for (int32_t i = 0; i < taken.count; ++i) ids[i] = page_of_ticket(source.pool, taken.first + i);
    return taken.count;
  }
  for (int32_t i = 0; i < count; ++i) {
    const int32_t page = take_page(source.pool);
    if (page == kNoPage) return i;
    ids[i] = page;
  }
  return count;
}

// A warp a head: its first lane takes the pages, all write.
__global__ void __launch_bounds__(kThreads) append_kernel(const SlotSource source, int32_t items) {
  const int warp = static_cast<int>(blockIdx.x) * kWarps + static_cast<int>(threadIdx.x) / kWarp, lane = threadIdx.x % kWarp;
  RowImage image = source.image;
  if (warp >= items * image.head_count) return;
  const int32_t item = warp / image.head_count, index = warp % image.head_count;
  image.row = source.rows[item];
  const int64_t table = image.table(index);
  Growth grown = growth_of(source, item, index, image.slots[table]);
  int32_t got = 0;
  if (lane == 0) got = take_pages(source, grown.wanted - grown.held, image.page_rows + table * image.max_pages + grown.held);
  __syncwarp();
  got = __shfl_sync(0xffffffffu, got, 0);
  grown.after = min(grown.after, max(grown.before, (grown.held + got) * image.page_slots));
  write_head(source.narrow, image, index, grown, {lane, kWarp});
  if (lane == 0) image.slots[table] = grown.after;
}

__global__ void take_many_kernel(const PagePoolRef pool, int32_t* ids, int32_t takers) {
  const int taker = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
  if (taker >= takers) return;
  int32_t* mine = ids + static_cast<int64_t>(taker) * 4;
  for (int i = 0; i < 4; ++i) mine[i] = kNoPage;
  if (taker % 3 == 0) {
    mine[0] = take_page(pool);
    return;
  }
  const TicketRange taken = take_tickets(pool, taker % 5);
  for (int i = 0; i < taken.count; ++i) mine[i] = page_of_ticket(pool, taken.first + i);
}

}  // namespace

void append_slots_cuda(const AppendSlots& op, Stream& stream) {
  const SlotSource source = slot_source(op);
  const auto items = static_cast<int32_t>(op.rows.shape[0]);
  const int blocks = (items * source.image.head_count + kWarps - 1) / kWarps;
  append_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(source, items);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

void take_many_cuda(const PagePoolRef& pool, View<int32_t, 2> ids, Stream& stream) {
  const auto takers = static_cast<int32_t>(ids.shape[0]);
  take_many_kernel<<<(takers + kThreads - 1) / kThreads, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(pool, ids.data, takers);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete::cache
