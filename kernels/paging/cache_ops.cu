// The bookkeeping of a cache on CUDA. Tables are [L, B, Hkv]: a row's counts are L runs of Hkv, so kernels walk a row's heads with
// neighbouring threads on neighbouring heads, and a head's pages with neighbouring lanes on neighbouring ids.
#include "kernels/cuda.h"
#include "kernels/paging/cache_ops.h"

#include <algorithm>
#include <array>

namespace accrete {
namespace {

constexpr int kWarp = 32;
constexpr int kThreads = 256;
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xffffffffu;
constexpr int kListRows = 256;       // rows that one launch takes by value
constexpr int kWordsPerThread = 16;  // of an image: one search for the head serves them all
constexpr int kUseFields = 4;        // pages, slots, full heads, heads with one slot left

using Ticket = unsigned long long;

struct RowList {
  int32_t row[kListRows];
};

struct Tables {
  int32_t* slots;      // [L, B, Hkv]
  int32_t* segment;    // [L, B, Hkv] or null
  int32_t* page_rows;  // [L, B, Hkv, max_pages]
  int32_t head_count;  // L * Hkv
  int32_t kv_heads;    // Hkv
  int32_t rows;        // B
  int32_t max_pages;
  int32_t page_slots;  // S
  PagePoolRef pool;

  __device__ int64_t at(int32_t row, int32_t index) const {
    return (static_cast<int64_t>(index / kv_heads) * rows + row) * kv_heads + index % kv_heads;
  }
};

Tables tables_of(const CacheRef& cache) {
  CHECK(cache.slots.stride[1] == cache.slots.shape[2] && cache.page_rows.stride[2] == cache.page_rows.shape[3], cache.slots.stride[1]);
  return {cache.slots.data,
          cache.segment.data,
          cache.page_rows.data,
          static_cast<int32_t>(cache.slots.shape[0] * cache.slots.shape[2]),
          static_cast<int32_t>(cache.slots.shape[2]),
          static_cast<int32_t>(cache.slots.shape[1]),
          static_cast<int32_t>(cache.page_rows.shape[3]),
          cache.page_slots,
          cache.pool};
}

unsigned blocks_of(int64_t items, int64_t each) { return static_cast<unsigned>((items + each - 1) / each); }

// body(rows, their list, index of the first) for pieces that one launch can carry.
template <class Body>
void each_list(std::span<const int32_t> rows, int32_t table_rows, Body&& body) {
  for (size_t first = 0; first < rows.size(); first += kListRows) {
    RowList list{};
    const auto piece = rows.subspan(first, std::min<size_t>(kListRows, rows.size() - first));
    std::copy(piece.begin(), piece.end(), list.row);
    for (int32_t row : piece) CHECK(row >= 0 && row < table_rows, row, table_rows);
    body(static_cast<unsigned>(piece.size()), list, static_cast<int64_t>(first));
  }
}

__global__ void __launch_bounds__(kThreads) fill_pool_kernel(PagePoolRef pool, uint64_t* give_ticket) {
  const unsigned page = blockIdx.x * kThreads + threadIdx.x;
  if (page < static_cast<unsigned>(pool.capacity)) pool.free_ring[page] = static_cast<int32_t>(page);
  if (page != 0) return;
  *pool.take_ticket = 0;
  *give_ticket = static_cast<uint64_t>(pool.capacity);
  *pool.exhausted = 0;
}

// Exclusive prefix sums of each warp's `pages`, and the first ticket of the block's share of the free list's end, for all its threads.
__device__ Ticket reserve_entries(int pages, Ticket* give, int& before) {
  __shared__ int sPages[kWarps];
  __shared__ Ticket sTicket;
  const int warp = threadIdx.x / kWarp;
  if (threadIdx.x % kWarp == 0) sPages[warp] = pages;
  __syncthreads();
  int total = 0;
  before = 0;
#pragma unroll
  for (int w = 0; w < kWarps; ++w) {
    if (w == warp) before = total;
    total += sPages[w];
  }
  if (threadIdx.x == 0) sTicket = total > 0 ? atomicAdd(give, static_cast<Ticket>(total)) : 0;
  __syncthreads();
  return sTicket;
}

// Grid: heads of a row / kWarps, rows. A warp gives one head's pages back. Blocks reserve their entries in any order: where in the list a
// free page stands does not matter, and nobody reads the list before the kernel's end.
__global__ void __launch_bounds__(kThreads) release_kernel(const Tables t, const RowList list, Ticket* give) {
  const int index = blockIdx.x * kWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  const bool live = index < t.head_count;
  const int64_t table = live ? t.at(list.row[blockIdx.y], index) : 0;
  const int pages = live ? (t.slots[table] + t.page_slots - 1) / t.page_slots : 0;
  int before;
  const Ticket ticket = reserve_entries(pages, give, before);
  if (!live) return;
  const unsigned capacity = t.pool.capacity;
  const unsigned start = static_cast<unsigned>((ticket + before) % capacity);
  int32_t* ids = t.page_rows + table * t.max_pages;
  for (int i = lane; i < pages; i += kWarp) {
    const unsigned entry = start + i;  // pages <= capacity: one wrap at most
    t.pool.free_ring[entry < capacity ? entry : entry - capacity] = ids[i];
    ids[i] = kNoPage;
  }
  if (lane != 0) return;
  t.slots[table] = 0;
  if (t.segment) t.segment[table] = 0;
}

// Grid: heads of a row / kThreads, rows.
__global__ void __launch_bounds__(kThreads) count_slots_kernel(const Tables t, const RowList list, int32_t* counts) {
  const int index = blockIdx.x * kThreads + threadIdx.x;
  if (index >= t.head_count) return;
  counts[static_cast<int64_t>(blockIdx.y) * t.head_count + index] = t.slots[t.at(list.row[blockIdx.y], index)];
}

struct UseSums {
  long long value[kUseFields] = {};
};

// The block's sums, in thread 0.
__device__ UseSums block_sums(UseSums sums) {
  __shared__ UseSums sWarp[kWarps];
#pragma unroll
  for (int offset = kWarp / 2; offset > 0; offset /= 2) {
#pragma unroll
    for (long long& value : sums.value) value += __shfl_xor_sync(kAllLanes, value, offset);
  }
  if (threadIdx.x % kWarp == 0) sWarp[threadIdx.x / kWarp] = sums;
  __syncthreads();
  if (threadIdx.x != 0) return sums;
  for (int w = 1; w < kWarps; ++w) {
    for (int i = 0; i < kUseFields; ++i) sums.value[i] += sWarp[w].value[i];
  }
  return sums;
}

// Grid: a block a row, and one more for the pool.
__global__ void __launch_bounds__(kThreads) row_use_kernel(const Tables t, const int32_t* rows, int64_t* uses, int64_t* pool) {
  if (blockIdx.x == gridDim.x - 1) {
    if (threadIdx.x != 0) return;
    pool[0] = static_cast<int64_t>(*t.pool.give_ticket - *t.pool.take_ticket);
    pool[1] = *t.pool.exhausted;
    *t.pool.exhausted = 0;
    return;
  }
  const int row = rows[blockIdx.x];
  UseSums sums;
  for (int index = threadIdx.x; row >= 0 && index < t.head_count; index += kThreads) {
    const int slots = t.slots[t.at(row, index)];
    sums.value[0] += (slots + t.page_slots - 1) / t.page_slots;
    sums.value[1] += slots;
    const int used = slots % t.page_slots;
    sums.value[2] += used == 0 ? 1 : 0;
    sums.value[3] += used > 0 && used + 1 == t.page_slots ? 1 : 0;
  }
  sums = block_sums(sums);
  if (threadIdx.x != 0) return;
  for (int i = 0; i < kUseFields; ++i) uses[blockIdx.x * kUseFields + i] = sums.value[i];
}

// Whether `pages` more can be taken. All blocks say the same: nothing moves the tickets while they run.
__device__ bool pages_fit(const PagePoolRef& pool, int64_t pages) { return *pool.take_ticket + static_cast<uint64_t>(pages) <= *pool.give_ticket; }

// Grid: heads / kWarps. A warp fills one head's tables with the pages of its share of the next tickets.
__global__ void __launch_bounds__(kThreads) take_row_kernel(const RowImage image, const PagePoolRef pool) {
  const int index = blockIdx.x * kWarps + threadIdx.x / kWarp, lane = threadIdx.x % kWarp;
  if (index >= image.head_count || !pages_fit(pool, image.heads[image.head_count].page_begin)) return;
  const int64_t table = image.table(index);
  const RowHead head = image.heads[index];
  const unsigned capacity = pool.capacity;
  const unsigned start = static_cast<unsigned>((*pool.take_ticket + static_cast<uint64_t>(head.page_begin)) % capacity);
  for (int i = lane; i < image.pages_of(index); i += kWarp) {
    const unsigned entry = start + i;
    image.page_rows[table * image.max_pages + i] = pool.free_ring[entry < capacity ? entry : entry - capacity];
  }
  if (lane != 0) return;
  image.slots[table] = head.slots;
  if (image.segment) image.segment[table] = head.segment;
}

// After take_row_kernel: what it used is taken.
__global__ void advance_kernel(const RowImage image, const PagePoolRef pool) {
  const int64_t pages = image.heads[image.head_count].page_begin;
  if (pages_fit(pool, pages)) *pool.take_ticket += static_cast<uint64_t>(pages);
  else *pool.exhausted = 1;
}

__device__ uint32_t read_word(const ImageWord& word) {
  if (word.at == nullptr) return 0;
  if (word.kind == ImageWord::kNarrow) return __float_as_uint(static_cast<float>(*static_cast<const bf16*>(word.at)));
  return *static_cast<const uint32_t*>(word.at);
}

__device__ void write_word(const ImageWord& word, uint32_t value) {
  if (word.kind == ImageWord::kNarrow) *static_cast<bf16*>(word.at) = bf16(__uint_as_float(value));
  if (word.kind == ImageWord::kWord) *static_cast<uint32_t*>(word.at) = value;
}

// Grid: words / (kThreads * kWordsPerThread); neighbouring threads have neighbouring words.
template <bool kGather>
__global__ void __launch_bounds__(kThreads) move_words_kernel(const RowImage image, int64_t first, int64_t count, uint32_t* words) {
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kThreads * kWordsPerThread + threadIdx.x;
  if (begin >= count) return;
  int32_t index = head_of_word(image, first + begin);
  for (int i = 0; i < kWordsPerThread; ++i) {
    const int64_t at = begin + i * kThreads;
    if (at >= count) return;
    while (first + at >= image.heads[index + 1].word_begin) ++index;
    const ImageWord word = image_word(image, index, first + at - image.heads[index].word_begin);
    if constexpr (kGather) words[at] = read_word(word);
    else write_word(word, words[at]);
  }
}

template <bool kGather>
void move_words(const RowWords& op, Stream& stream) {
  const RowImage image = row_image(op.cache, op.row, op.heads);
  const int64_t count = op.words.shape[0];
  if (count == 0) return;
  const unsigned blocks = blocks_of(count, kThreads * kWordsPerThread);
  move_words_kernel<kGather><<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(image, op.first, count, op.words.data);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace

void fill_pool_cuda(const PagePoolRef& pool, uint64_t* give_ticket, Stream& stream) {
  fill_pool_kernel<<<blocks_of(pool.capacity, kThreads), kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(pool, give_ticket);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

void release_rows_cuda(const ReleaseRows& op, Stream& stream) {
  const Tables tables = tables_of(op.cache);
  auto* give = reinterpret_cast<Ticket*>(op.give_ticket);
  each_list(op.rows, tables.rows, [&](unsigned rows, const RowList& list, int64_t) {
    const dim3 grid(blocks_of(tables.head_count, kWarps), rows);
    release_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(tables, list, give);
    ACCRETE_CUDA_CHECK(cudaGetLastError());
  });
}

void count_slots_cuda(const CountSlots& op, Stream& stream) {
  const Tables tables = tables_of(op.cache);
  CHECK(op.counts.shape[0] == static_cast<int64_t>(op.rows.size()) && op.counts.shape[1] == tables.head_count, op.counts.shape[0], op.counts.shape[1]);
  each_list(op.rows, tables.rows, [&](unsigned rows, const RowList& list, int64_t first) {
    const dim3 grid(blocks_of(tables.head_count, kThreads), rows);
    int32_t* counts = op.counts.data + first * tables.head_count;
    count_slots_kernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(tables, list, counts);
    ACCRETE_CUDA_CHECK(cudaGetLastError());
  });
}

void row_use_cuda(const RowUseQuery& op, Stream& stream) {
  const Tables tables = tables_of(op.cache);
  const int64_t rows = op.rows.shape[0];
  CHECK(op.uses.shape[0] >= rows && op.uses.shape[1] == kUseFields && op.pool.shape[0] == 2, op.uses.shape[0], rows, op.pool.shape[0]);
  const auto blocks = static_cast<unsigned>(rows + 1);
  row_use_kernel<<<blocks, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(tables, op.rows.data, op.uses.data, op.pool.data);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

void take_row_cuda(const TakeRow& op, Stream& stream) {
  const RowImage image = row_image(op.cache, op.row, op.heads);
  const auto cuda = static_cast<cudaStream_t>(stream.cuda);
  take_row_kernel<<<blocks_of(image.head_count, kWarps), kThreads, 0, cuda>>>(image, op.cache.pool);
  advance_kernel<<<1, 1, 0, cuda>>>(image, op.cache.pool);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

void gather_row_cuda(const RowWords& op, Stream& stream) { move_words<true>(op, stream); }
void scatter_row_cuda(const RowWords& op, Stream& stream) { move_words<false>(op, stream); }

}  // namespace accrete
