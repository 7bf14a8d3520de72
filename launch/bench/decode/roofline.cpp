#include "launch/bench/decode/roofline.h"

#include <algorithm>

namespace accrete::launch {
namespace {

constexpr double kStateSlots = 13;            // moved a step: a window of 12 read, one written
constexpr double kKernelsOfALayer = 8;
constexpr double kOtherKernels = 6;
constexpr double kSmallAllReduce = 7e-6;      // seconds
constexpr double kLinkBandwidth = 300e9;      // bytes a second between GPUs

}  // namespace

double StepLimit::total() const { return std::max(weights, products) + cache + logits + gaps + all_reduce; }

int64_t layer_parameters(const worker::ModelConfig& m) {
  return m.layers * (m.hidden * m.head_size * 2 * (m.query_heads + m.kv_heads) + 3 * m.hidden * m.mlp);
}

int64_t kv_bytes_per_slot(const worker::ModelConfig& m) { return 2 * m.layers * m.kv_heads * m.head_size * 2; }

// Each stage has 1 / P of the layers and passes over them P times, for a part of the batch each time: as many weights, sums and kernels as one
// stage, with a part of the products and of the cache. The last stage also has the vocabulary.
StepLimit decode_limit(const worker::ModelConfig& m, const DecodeLoad& load, const RooflineGpu& gpu) {
  const auto layers = static_cast<double>(layer_parameters(m)), vocabulary = static_cast<double>(m.vocab * m.hidden);
  const auto batch = static_cast<double>(load.batch), shards = static_cast<double>(load.tensor);
  const auto stages = static_cast<double>(load.pipeline);
  StepLimit limit;
  limit.weights = (layers * (load.fp8 ? 1 : 2) + vocabulary * 2) / shards / gpu.bandwidth;
  limit.products = 2 * batch * (layers / (load.fp8 ? gpu.fp8 : gpu.bf16) + vocabulary / gpu.bf16) / shards / stages;
  limit.cache = batch * (load.slots + (load.compresses ? kStateSlots : 0)) * static_cast<double>(kv_bytes_per_slot(m)) / shards / stages / gpu.bandwidth;
  limit.logits = batch * static_cast<double>(m.vocab) * 4 / shards / gpu.bandwidth;
  limit.gaps = (kKernelsOfALayer * static_cast<double>(m.layers) + kOtherKernels) * gpu.kernel_gap;
  if (load.tensor > 1) {
    const double bytes = batch / stages * static_cast<double>(m.hidden) * 2;  // of one sum
    limit.all_reduce = 2 * static_cast<double>(m.layers) * (kSmallAllReduce + 2 * bytes * (shards - 1) / shards / kLinkBandwidth);
  }
  return limit;
}

}  // namespace accrete::launch
