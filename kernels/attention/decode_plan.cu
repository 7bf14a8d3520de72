#include <cub/block/block_scan.cuh>

#include "kernels/attention/decode_plan.h"
#include "kernels/check.h"
#include "kernels/cuda.h"

namespace accrete {
namespace {

constexpr int kThreads = 1024;

struct PlanArgs {
  DecodePlan plan;
  const int32_t* row;    // [decodes]
  const int32_t* slots;  // [L, B, Hkv]
  int64_t layer_stride;  // of slots
  int decodes;
};

// An item's cost: its tiles after this step's update at most, and a constant.
__device__ int item_cost(const PlanArgs& a, int layer, int item) {
  const int head = item / a.plan.shape.chunks(), row = a.row[head / a.plan.shape.kv_heads];
  if (row < 0) return kItemOverhead;
  const int slots = a.slots[layer * a.layer_stride + static_cast<int64_t>(row) * a.plan.shape.kv_heads + head % a.plan.shape.kv_heads];
  return kItemOverhead + slots / kTileSlots + 1;
}

// Block: a layer. Costs are summed first, for the length of a range, then scanned.
__global__ void __launch_bounds__(kThreads) plan_kernel(const PlanArgs a) {
  using Scan = cub::BlockScan<int, kThreads>;
  __shared__ typename Scan::TempStorage sScan;
  __shared__ int sTotal;
  const int layer = blockIdx.x, workers = a.plan.shape.workers(), items = a.plan.shape.items(a.decodes);
  int32_t* prefix = a.plan.prefix + static_cast<int64_t>(layer) * (a.plan.shape.items(a.plan.shape.max_sequences) + 1);
  int32_t* first_item = a.plan.first_item + static_cast<int64_t>(layer) * (workers + 1);
  const int each = (items + kThreads - 1) / kThreads, begin = min(items, static_cast<int>(threadIdx.x) * each), end = min(items, begin + each);
  int sum = 0;
  for (int i = begin; i < end; ++i) sum += item_cost(a, layer, i);
  int before = 0, total = 0;
  Scan(sScan).ExclusiveSum(sum, before, total);
  if (threadIdx.x == 0) sTotal = total;
  __syncthreads();
  const int range = max((sTotal + workers - 1) / workers, least_tiles(sTotal, a.plan.shape.multiprocessors));
  for (int i = begin; i < end; ++i) {
    const int after = before + item_cost(a, layer, i);
    prefix[i] = before;
    for (int w = (before + range - 1) / range; w <= workers && w * range < after; ++w) first_item[w] = i;
    before = after;
  }
  for (int w = static_cast<int>(threadIdx.x); w <= workers; w += kThreads) {
    if (w * range >= sTotal) first_item[w] = items;  // nothing to do
  }
  if (threadIdx.x == 0) {
    prefix[items] = sTotal;
    a.plan.range[layer] = range;
  }
}

}  // namespace

void plan_decode_cuda(const DecodePlan& plan, const StepBatch& batch, const CacheRef& cache, Stream& stream) {
  if (batch.decodes == 0) return;
  CHECK(batch.decodes <= plan.shape.max_sequences, batch.decodes, plan.shape.max_sequences);
  CHECK(cache.slots.shape[0] == plan.shape.layers && cache.slots.shape[2] == plan.shape.kv_heads, cache.slots.shape[0], cache.slots.shape[2]);
  const PlanArgs args{plan.beside(batch), batch.row.data, cache.slots.data, cache.slots.stride[0], static_cast<int>(batch.decodes)};
  plan_kernel<<<plan.shape.layers, kThreads, 0, static_cast<cudaStream_t>(stream.cuda)>>>(args);
  ACCRETE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace accrete
