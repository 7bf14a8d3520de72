// LlamaStage: one rank's part of a Llama, its layers of one pipeline stage and its tensor shard of them. Owns the weights and the step's
// scratch memory, on its device; borrows the device, the tensor group, and, for a call, the caches. Owned by the step thread.
//
//   h = embed(ids)
//   each layer:  h += Wo attention(dmc_update(Wqkv rms_norm(h)));   h += Wdown silu_mul(Wgate_up rms_norm(h))
//   logits = Wout rms_norm(h)
// with an all-reduce over the tensor group after Wo, Wdown and the embedding. On a GPU everything is enqueued on the device's stream, and a
// step of decodes may be captured in a graph as far as the tensor group can.
#pragma once

#include <cstdint>
#include <memory>

#include "kernels/attention/prompt_share.h"
#include "parallel/device_group.h"
#include "parallel/one_shot_group.h"
#include "parallel/one_shot_limits.h"
#include "parallel/topology.h"
#include "worker/model/llama_weights.h"
#include "worker/model/stage_device.h"
#include "worker/model/tensor_source.h"

namespace accrete::worker {

struct LlamaStageOptions {
  WeightFormat weights;
  int64_t max_step_tokens = 512;  // T at most, scratch is sized for it
  int64_t max_logit_rows = 64;    // rows of logits at most in a step
  int64_t max_sequences = 64;     // of a step at most
  DmcParams dmc;                  // layer_begin and kv_head_begin are filled in by the stage
  // Sums within the limits go through it, in bf16 together with the norm behind them; null: all go through the tensor group.
  parallel::OneShotGroup* one_shot = nullptr;
  parallel::OneShotLimits one_shot_limits;
  LoadProgress progress;          // may be empty
};

struct StageInput {
  StepBatch batch;
  View<const int32_t, 1> ids;           // [T] token ids
  View<const int32_t, 1> logit_tokens;  // [n] token indices of the step whose logits are wanted (last stage)
  AttentionLoad load;                   // where the backend plans: what the host knows of the batch's attention
};

class LlamaStage {
 public:
  // Reads exactly this shard's slices from the source. Throws ModelError.
  LlamaStage(const TensorSource& source, const parallel::ShardSpec& shard, const LlamaStageOptions& options, StageDevice& device,
             parallel::DeviceGroup& tensor_group);
  ~LlamaStage();

  // hidden: [T, E] the residual stream, of the device's activation type; in on later stages, out on all but the last. The first stage
  // embeds the ids into it.
  AnyView<2> hidden(int64_t tokens);
  void forward(const StageInput& input, const CacheRef& cache);
  // For benchmarks, in place of forward: the caches take random entries as if the tokens had been computed, and the logits are of whatever
  // the residual stream holds.
  void pretend(const StageInput& input, const CacheRef& cache);
  // After forward on the last stage: [n, V] f32 on shard 0 of the tensor group, [0, V] elsewhere. Collective over the tensor group.
  View<float, 2> logits();

  const LlamaWeights& weights() const;
  int64_t scratch_bytes() const;  // memory beside the weights

 private:
  struct State;
  std::unique_ptr<State> state_;
};

parallel::NetworkShape network_shape(const ModelConfig& config);
// What the checkpoint was trained to do: learned decisions when it has a dmc block (rounded to bf16 before they are
// compared when the weights are kept in bf16), else off.
DmcParams learned_dmc(const ModelConfig& config, DType weight_dtype);

}  // namespace accrete::worker
