// LlamaStage: one rank's part of a Llama, its layers of one pipeline stage and its tensor shard of them. Owns the
// weights and the step's scratch memory; borrows the backend, the thread pool, the communicator of its tensor group
// and, for a call, the caches. Owned by the step thread.
//
//   h = embed(ids)
//   each layer:  h += Wo attention(dmc_update(Wqkv rms_norm(h)));   h += Wdown silu_mul(Wgate_up rms_norm(h))
//   logits = Wout rms_norm(h)
// with an all-reduce over the tensor group after Wo, Wdown and the embedding.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>

#include "kernels/backend.h"
#include "parallel/communicator.h"
#include "parallel/topology.h"
#include "worker/model/tensor_source.h"

namespace accrete::worker {

struct LlamaStageOptions {
  DType weight_dtype = DType::bf16;  // f32 or bf16 on the CPU; norms are always f32
  int64_t max_step_tokens = 512;     // T at most, scratch is sized for it
  int64_t max_logit_rows = 64;       // rows of logits at most in a step
  DmcParams dmc;                     // layer_begin and kv_head_begin are filled in by the stage
  std::function<void(int64_t done, int64_t total)> progress;  // bytes of weights read, for a progress bar; may be empty
};

struct StageInput {
  StepBatch batch;
  View<const int32_t, 1> ids;           // [T] token ids
  View<const int32_t, 1> logit_tokens;  // [n] token indices of the step whose logits are wanted (last stage)
};

// Where a stage computes.
struct StageDevice {
  const Backend& backend;
  Stream stream;
};

class LlamaStage {
 public:
  // Reads exactly this shard's slices from the source. Throws ModelError.
  LlamaStage(const TensorSource& source, const parallel::ShardSpec& shard, const LlamaStageOptions& options,
             const StageDevice& device, parallel::Communicator& tensor_group);
  ~LlamaStage();

  // hidden: [T, E] the residual stream; in on later stages, out on all but the last. The first stage embeds the ids
  // into it.
  View<float, 2> hidden(int64_t tokens);
  void forward(const StageInput& input, const CacheRef& cache);
  // After forward on the last stage: [n, V] on shard 0 of the tensor group, [0, V] elsewhere. Collective over the
  // tensor group.
  View<float, 2> logits();

  int64_t weight_bytes() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

parallel::NetworkShape network_shape(const ModelConfig& config);
// What the checkpoint was trained to do: learned decisions when it has a dmc block (rounded to bf16 before they are
// compared when the weights are kept in bf16), else off.
DmcParams learned_dmc(const ModelConfig& config, DType weight_dtype);

}  // namespace accrete::worker
