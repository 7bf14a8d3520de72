// LlamaWeights: one shard's tensors in the layout the forward pass wants: q, k and v rows fused, gate and up rows
// fused, one allocation for all. Read in parallel slices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/thread_pool.h"
#include "kernels/view.h"
#include "parallel/topology.h"
#include "worker/model/tensor_source.h"

namespace accrete::worker {

struct LlamaLayerWeights {
  AnyView<1> attention_norm;  // [E] f32
  AnyView<2> qkv;             // [(Hq_local + 2 Hkv_local) D, E]
  AnyView<2> output;          // [E, Hq_local D]
  AnyView<1> mlp_norm;        // [E] f32
  AnyView<2> gate_up;         // [2 F_local, E]
  AnyView<2> down;            // [E, F_local]
};

class LlamaWeights {
 public:
  // Throws ModelError when a tensor is missing or of another shape than the config says. `progress` gets bytes and may
  // be empty.
  LlamaWeights(const TensorSource& source, const parallel::ShardSpec& shard, DType dtype, ThreadPool& pool,
               const std::function<void(int64_t done, int64_t total)>& progress);

  const LlamaLayerWeights& layer(int64_t local) const { return layers_[local]; }
  const AnyView<2>& embedding() const { return embedding_; }  // [V_local, E]; first stage
  const AnyView<2>& logit_weights() const {
    return logit_weights_;
  }  // [V_local, E]; last stage; the embedding's memory when tied
  const AnyView<1>& final_norm() const { return final_norm_; }  // [E] f32; last stage
  int64_t bytes() const { return bytes_; }

 private:
  struct Free {
    void operator()(std::byte* memory) const;
  };
  std::unique_ptr<std::byte[], Free> memory_;
  int64_t bytes_ = 0;
  std::vector<LlamaLayerWeights> layers_;
  AnyView<2> embedding_;
  AnyView<2> logit_weights_;
  AnyView<1> final_norm_;
};

}  // namespace accrete::worker
