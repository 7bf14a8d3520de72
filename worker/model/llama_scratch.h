// LlamaScratch: the memory of one step, sized once for the largest.
#pragma once

#include <cstdint>
#include <vector>

#include "kernels/view.h"
#include "parallel/topology.h"
#include "worker/model/model_config.h"

namespace accrete::worker {

// Where a stage's largest step needs how much.
struct LlamaScratchSize {
  int64_t tokens = 0;      // T at most
  int64_t logit_rows = 0;  // n at most
  int tensor_size = 1;     // ranks of the tensor group
  int tensor_rank = 0;
};

struct LlamaScratch {
  LlamaScratch(const ModelConfig& config, const parallel::ShardSpec& shard, const LlamaScratchSize& size);

  std::vector<float> hidden;        // [T, E] the residual stream
  std::vector<float> delta;         // [T, E] what a block adds to it
  std::vector<float> normed;        // [T, E]
  std::vector<float> qkv;           // [T, (Hq_local + 2 Hkv_local) D]
  std::vector<float> q;             // [T, Hq_local, D]
  std::vector<float> own_k;         // [T, Hkv_local, D]
  std::vector<float> own_v;         // [T, Hkv_local, D]
  std::vector<int32_t> own_slot;    // [T, Hkv_local]
  std::vector<float> attended;      // [T, Hq_local, D]
  std::vector<float> gate_up;       // [T, 2 F_local]
  std::vector<float> activated;     // [T, F_local]
  std::vector<float> cos;           // [T, D/2]
  std::vector<float> sin;           // [T, D/2]
  std::vector<float> last_rows;     // [n, E] residual rows whose logits are wanted; last stage
  std::vector<float> shard_logits;  // [n, V_padded] this shard's, V_padded = ceil(V / tensor_size); last stage
  std::vector<float> all_logits;    // [tensor_size, n, V_padded]; last stage, shard 0 of several
  std::vector<float> logits;        // [n, V]; last stage, shard 0 of several
};

}  // namespace accrete::worker
