// LlamaWeights: one shard's tensors in the layout the forward pass wants: q, k and v rows fused, gate and up rows
// fused, one allocation for all. Read in parallel slices.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "kernels/view.h"
#include "parallel/topology.h"
#include "worker/model/stage_device.h"
#include "worker/model/tensor_source.h"

namespace accrete::worker {

// A matrix of products: bf16 or f32, or fp8 with a factor for each row.
struct WeightMatrix {
  AnyView<2> w;                 // [N, K]
  View<const float, 1> scale;   // [N]; fp8
};

struct LlamaLayerWeights {
  AnyView<1> attention_norm;  // [E] f32
  WeightMatrix qkv;           // [(Hq_local + 2 Hkv_local) D, E]
  WeightMatrix output;        // [E, Hq_local D]
  AnyView<1> mlp_norm;        // [E] f32
  WeightMatrix gate_up;       // [2 F_local, E]
  WeightMatrix down;          // [E, F_local]
};

// How a shard's matrices are kept. Embedding and logits' weights are never fp8.
struct WeightFormat {
  DType dtype = DType::bf16;  // f32 or bf16
  bool fp8 = false;           // of the layers' matrices
};

class LlamaWeights {
 public:
  // Throws ModelError when a tensor is missing or of another shape than the config says. `progress` gets bytes and may
  // be empty.
  LlamaWeights(const TensorSource& source, const parallel::ShardSpec& shard, const WeightFormat& format, StageDevice& device,
               const LoadProgress& progress);

  const LlamaLayerWeights& layer(int64_t local) const { return layers_[local]; }
  int64_t layers() const { return static_cast<int64_t>(layers_.size()); }
  const AnyView<2>& embedding() const { return embedding_; }  // [V_local, E]; first stage
  // [V_local, E], on a GPU with rows of zeros up to a multiple of 16; last stage; the embedding's memory when tied
  const AnyView<2>& logit_weights() const { return logit_weights_; }
  const AnyView<1>& final_norm() const { return final_norm_; }  // [E] f32; last stage
  int64_t bytes() const { return bytes_; }

 private:
  DeviceBytes memory_;
  int64_t bytes_ = 0;
  std::vector<LlamaLayerWeights> layers_;
  AnyView<2> embedding_;
  AnyView<2> logit_weights_;
  AnyView<1> final_norm_;
};

}  // namespace accrete::worker
