// StepRig: runs steps of random tokens through the update op over a KvCache, and tells a naive model what they were.
#pragma once

#include <random>
#include <vector>

#include "cache/kv_cache.h"
#include "kernels/dmc/dmc_update.h"
#include "kernels/thread_pool.h"
#include "tests/cache/naive_cache.h"

namespace accrete::cache {

// `tokens` more tokens for the sequence in `row`.
struct RowStep {
  int32_t row = 0;
  int64_t tokens = 0;
};

class StepRig {
 public:
  // merge: share of tokens whose decision neuron says accumulate.
  StepRig(KvCache& cache, uint32_t seed, double merge = 0.6) : cache_(cache), random_(seed), merge_(merge) {}

  // All layers of one step. models[i] belongs to steps[i]; they must have the shape's heads.
  void run(const std::vector<RowStep>& steps, const std::vector<NaiveRow*>& models) {
    std::vector<int32_t> row, begin{0}, position;
    for (size_t i = 0; i < steps.size(); ++i) {
      row.push_back(steps[i].row);
      for (int64_t t = 0; t < steps[i].tokens; ++t) position.push_back(static_cast<int32_t>(models[i]->tokens + t));
      begin.push_back(static_cast<int32_t>(position.size()));
    }
    std::vector<uint64_t> keys(steps.size(), 0);
    const auto sequences = static_cast<int64_t>(row.size()), tokens = static_cast<int64_t>(position.size());
    StepBatch batch;
    batch.row = View<int32_t, 1>(row.data(), {sequences});
    batch.token_begin = View<int32_t, 1>(begin.data(), {sequences + 1});
    batch.position = View<int32_t, 1>(position.data(), {tokens});
    batch.sequence_key = View<uint64_t, 1>(keys.data(), {sequences});
    for (int layer = 0; layer < cache_.shape().layers; ++layer) run_layer(batch, layer, models);
    for (size_t i = 0; i < steps.size(); ++i) models[i]->tokens += steps[i].tokens;
  }

 private:
  void run_layer(const StepBatch& batch, int layer, const std::vector<NaiveRow*>& models) {
    const int64_t D = cache_.shape().head_size, H = cache_.shape().kv_heads, T = batch.tokens();
    std::vector<float> qkv(T * (kGroup + 2) * H * D), q(T * kGroup * H * D), own_k(T * H * D), own_v(own_k), cos(T * D / 2), sin(cos);
    std::vector<int32_t> own_slot(T * H);
    std::normal_distribution<float> normal;
    for (float& x : qkv) x = normal(random_);
    const View<float, 2> view(qkv.data(), {T, (kGroup + 2) * H * D});
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t h = 0; h < H; ++h) view(t, (kGroup * H + h + 1) * D - 1) = std::bernoulli_distribution(merge_)(random_) ? 6.0f : 4.0f;
      for (int64_t i = 0; i < D / 2; ++i) cos[t * D / 2 + i] = static_cast<float>(std::cos(angle(batch.position(t), i)));
      for (int64_t i = 0; i < D / 2; ++i) sin[t * D / 2 + i] = static_cast<float>(std::sin(angle(batch.position(t), i)));
    }
    tell(batch, layer, view, models);
    DmcUpdate op;
    op.dmc.mode = DmcMode::learned;
    op.dmc.window = cache_.shape().window;
    op.batch = batch;
    op.cache = cache_.ref();
    op.layer = layer;
    op.qkv = view;
    op.cos = View<float, 2>(cos.data(), {T, D / 2});
    op.sin = View<float, 2>(sin.data(), {T, D / 2});
    op.q = View<float, 3>(q.data(), {T, kGroup * H, D});
    op.own_k = View<float, 3>(own_k.data(), {T, H, D});
    op.own_v = View<float, 3>(own_v.data(), {T, H, D});
    op.own_slot = View<int32_t, 2>(own_slot.data(), {T, H});
    Stream stream{&pool_};
    dmc_update_cpu(op, stream);
  }

  // The layer's tokens, before the op, for the models.
  void tell(const StepBatch& batch, int layer, const View<float, 2>& qkv, const std::vector<NaiveRow*>& models) const {
    const int64_t D = cache_.shape().head_size, H = cache_.shape().kv_heads;
    for (int64_t i = 0; i < batch.sequences(); ++i) {
      for (int64_t t = batch.token_begin(i); t < batch.token_begin(i + 1); ++t) {
        for (int64_t h = 0; h < H; ++h) models[i]->heads[layer * H + h].add(token(qkv, t, h, batch.position(t), D));
      }
    }
  }
  NaiveToken token(const View<float, 2>& qkv, int64_t t, int64_t h, int64_t position, int64_t D) const {
    const int64_t H = cache_.shape().kv_heads;
    NaiveToken token;
    token.position = position;
    for (int64_t d = 0; d < D; ++d) token.k.push_back(qkv(t, (kGroup * H + h) * D + d));
    for (int64_t d = 0; d < D; ++d) token.v.push_back(qkv(t, (kGroup * H + H + h) * D + d));
    for (int64_t g = 0; g < kGroup; ++g) token.importance += qkv(t, (h * kGroup + g + 1) * D - 1) / static_cast<double>(kGroup);
    return token;
  }

  static constexpr int64_t kGroup = 2;  // G
  KvCache& cache_;
  std::mt19937 random_;
  double merge_;
  ThreadPool pool_{2};
};

inline NaiveRow naive_row(const KvCacheShape& shape) { return {std::vector<NaiveHead>(shape.heads(), NaiveHead(shape.window)), 0}; }

// Greatest absolute difference between a row's slots and the model's; infinite when the counts differ.
inline double row_difference(KvCache& cache, int32_t row, const NaiveRow& model) {
  const CacheRef ref = cache.ref();
  const KvCacheShape& shape = cache.shape();
  const View<float, 4> pages = ref.pages.as<float>();
  double worst = 0.0;
  for (int64_t index = 0; index < shape.heads(); ++index) {
    const int64_t layer = index / shape.kv_heads, head = index % shape.kv_heads;
    const NaiveHead& naive = model.heads[index];
    if (ref.slots(layer, row, head) != static_cast<int32_t>(naive.keys.size())) return INFINITY;
    for (size_t s = 0; s < naive.keys.size(); ++s) {
      const int32_t page = ref.page_rows(layer, row, head, s / shape.page_slots);
      for (int64_t d = 0; d < shape.head_size; ++d) {
        worst = std::max(worst, std::abs(pages(page, 0, s % shape.page_slots, d) - naive.keys[s][d]));
        worst = std::max(worst, std::abs(pages(page, 1, s % shape.page_slots, d) - naive.values[s][d]));
      }
    }
  }
  return worst;
}

}  // namespace accrete::cache
