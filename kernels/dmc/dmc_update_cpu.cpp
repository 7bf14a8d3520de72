#include "kernels/dmc/dmc_update.h"

#include <vector>

#include "kernels/dmc/head_cache.h"
#include "kernels/thread_pool.h"

namespace accrete {
namespace {

// Half-split rotation of x[D] into y[D]; learned mode zeroes the last component again, which the rotation made non-zero.
struct Rotation {
  const float* cos;  // [D/2]
  const float* sin;
  int64_t size;      // D
  bool zero_last;
};
void rotate(const float* x, const Rotation& rotation, float* y) {
  const auto [cos, sin, size, zero_last] = rotation;
  const int64_t half = size / 2;
  for (int64_t i = 0; i < half; ++i) {
    const float a = x[i], b = x[i + half];
    y[i] = a * cos[i] - b * sin[i];
    y[i + half] = a * sin[i] + b * cos[i];
  }
  if (zero_last) y[size - 1] = 0.0f;
}

// One sequence's tokens through one KV head and its query group.
class HeadUpdate {
 public:
  HeadUpdate(const DmcUpdate& op, int64_t sequence, int64_t head)
      : op_(op),
        sequence_(sequence),
        head_(head),
        size_(op.own_k.shape[2]),
        kv_heads_(op.own_k.shape[1]),
        group_(op.q.shape[1] / kv_heads_),
        learned_(op.dmc.mode == DmcMode::learned),
        cache_(op.cache, op.dmc, op.layer, op.batch.row(sequence), static_cast<int>(head)) {
    if (op.dmc.mode == DmcMode::synthetic) rate_ = synthetic_rate(op.dmc, global_layer(), global_head());
  }

  void run(float* scratch) {
    const int32_t begin = op_.batch.token_begin(sequence_), end = op_.batch.token_begin(sequence_ + 1);
    for (int32_t t = begin; t < end; ++t) token(t, t + 1 == end, scratch);
    cache_.finish();
  }

 private:
  int global_layer() const { return op_.dmc.layer_begin + op_.layer; }
  int global_head() const { return op_.dmc.kv_head_begin + static_cast<int>(head_); }

  Decision decide(int32_t t, const float* q, const float* k) const {
    if (op_.dmc.mode == DmcMode::off) return {};
    if (!learned_) {
      return decide_synthetic(op_.dmc, {op_.batch.sequence_key(sequence_), global_layer(), global_head(), op_.batch.position(t)}, rate_);
    }
    float importance = 0.0f;
    for (int64_t g = 0; g < group_; ++g) importance += q[g * size_ + size_ - 1];
    return decide_learned(op_.dmc, k[size_ - 1], importance / static_cast<float>(group_));
  }

  // scratch: [3 D] the token's key with its decision neuron zeroed, and the slot's averages.
  void token(int32_t t, bool last, float* scratch) {
    const View<float, 2> qkv = op_.qkv.as<float>();
    float* q = &qkv(t, head_ * group_ * size_);
    const float* k = &qkv(t, (op_.q.shape[1] + head_) * size_);
    const float* v = &qkv(t, (op_.q.shape[1] + kv_heads_ + head_) * size_);
    const Decision decision = decide(t, q, k);
    const bool append = !decision.accumulate || cache_.slots() == 0 || op_.batch.position(t) == 0;
    if (append) {
      store_previous(t);
      cache_.append();
    }
    average(k, v, decision.weight, scratch);
    write_entry(t, q, scratch);
    if (last) cache_.store(&op_.own_k.as<float>()(t, head_, 0), &op_.own_v.as<float>()(t, head_, 0));
  }

  // A segment ends before token t: its last token's entry is the slot's final one.
  void store_previous(int32_t t) {
    if (t == op_.batch.token_begin(sequence_)) return;  // it was stored at the end of the step before
    cache_.store(&op_.own_k.as<float>()(t - 1, head_, 0), &op_.own_v.as<float>()(t - 1, head_, 0));
  }

  void average(const float* k, const float* v, float weight, float* scratch) {
    std::copy_n(k, size_, scratch);
    if (learned_) scratch[size_ - 1] = 0.0f;
    if (op_.dmc.mode != DmcMode::off) return cache_.add(scratch, v, weight, {scratch + size_, scratch + 2 * size_});
    std::copy_n(scratch, size_, scratch + size_);
    std::copy_n(v, size_, scratch + 2 * size_);
  }

  void write_entry(int32_t t, float* q, const float* scratch) {
    const Rotation rotation{&op_.cos(t, 0), &op_.sin(t, 0), size_, learned_};
    rotate(scratch + size_, rotation, &op_.own_k.as<float>()(t, head_, 0));
    std::copy_n(scratch + 2 * size_, size_, &op_.own_v.as<float>()(t, head_, 0));
    op_.own_slot(t, head_) = std::max(cache_.slots() - 1, 0);
    for (int64_t g = 0; g < group_; ++g) {
      float* row = q + g * size_;
      if (learned_) row[size_ - 1] = 0.0f;
      rotate(row, rotation, &op_.q.as<float>()(t, head_ * group_ + g, 0));
    }
  }

  const DmcUpdate& op_;
  int64_t sequence_, head_, size_, kv_heads_, group_;
  bool learned_;
  double rate_ = 0.0;
  HeadCache cache_;
};

void check_shapes(const DmcUpdate& op) {
  const int64_t size = op.own_k.shape[2], kv_heads = op.own_k.shape[1], query_heads = op.q.shape[1];
  CHECK(size % 2 == 0 && query_heads % kv_heads == 0, size, query_heads, kv_heads);
  CHECK(op.qkv.shape[1] == (query_heads + 2 * kv_heads) * size, op.qkv.shape[1], query_heads, kv_heads, size);
  CHECK(op.qkv.shape[0] == op.batch.tokens(), op.qkv.shape[0], op.batch.tokens());
  CHECK(op.cache.pages.shape[3] == size && op.cache.slots.shape[2] == kv_heads, op.cache.pages.shape[3], op.cache.slots.shape[2]);
  CHECK(op.dmc.mode == DmcMode::off || op.cache.ring_k.data != nullptr);
}

}  // namespace

void dmc_update_cpu(const DmcUpdate& op, Stream& stream) {
  check_shapes(op);
  const int64_t kv_heads = op.own_k.shape[1], size = op.own_k.shape[2];
  const int64_t items = op.batch.sequences() * kv_heads;
  constexpr int64_t kGrainTokens = 8;  // fewer tokens than this are not worth a fork
  const int64_t grain = op.batch.tokens() * kv_heads < kGrainTokens ? items : 1;
  stream.pool->run_ranges(items, std::max<int64_t>(grain, 1), [&](int64_t begin, int64_t end) {
    thread_local std::vector<float> scratch;  // grows to 3 D once
    scratch.resize(3 * size);
    for (int64_t item = begin; item < end; ++item) {
      HeadUpdate(op, item / kv_heads, item % kv_heads).run(scratch.data());
    }
  });
}

}  // namespace accrete
