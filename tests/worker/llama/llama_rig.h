// LlamaRig: the ranks of one replica, each with its LlamaStage and KvCache, driven step by step by a test. All as
// threads of this process; or one here and the others in the other processes of an mpirun job, which all run the same
// test.
#pragma once

#include <memory>
#include <vector>

#include "cache/kv_cache.h"
#include "kernels/thread_pool.h"
#include "parallel/communicator.h"
#include "worker/model/llama_stage.h"

namespace accrete::worker {

struct RigOptions {
  parallel::Topology topology;
  DmcParams dmc;
  DType weight_dtype = DType::f32;
  int64_t chunk = 512;       // prompt tokens of one sequence in a step
  int64_t max_tokens = 128;  // longest sequence
  int64_t sequences = 4;
};

// The tokens of one step, sequence after sequence.
struct RigStep {
  std::vector<int32_t> row;
  std::vector<int32_t> token_begin{0};
  std::vector<int32_t> position;
  std::vector<uint64_t> key;
  std::vector<int32_t> ids;
  std::vector<int32_t> logit_tokens;

  // `ids` of sequence `row` from position `begin`; logits of all of them, or of the last alone, or of none.
  enum class Want { none, last, all };
  void add(int32_t sequence, int32_t begin, std::span<const int32_t> tokens, Want want);
  StageInput input() const;
};

using LogitRows = std::vector<std::vector<float>>;

class LlamaRig {
 public:
  LlamaRig(const TensorSource& source, const RigOptions& options);
  // One rank of `world`. Collective, and so is step, which returns the logits everywhere. `world` must outlive the rig.
  LlamaRig(const TensorSource& source, const RigOptions& options, parallel::Communicator& world);
  ~LlamaRig();

  LogitRows step(const RigStep& step);
  // [L, Hkv] slot counts of the whole model; with all ranks in this process.
  std::vector<int32_t> slot_counts(int32_t sequence) const;

  // The logits of every token of `ids` as sequence 0, in chunks.
  LogitRows all_logits(std::span<const int32_t> ids);

  struct Greedy {
    std::vector<std::vector<int32_t>> tokens;  // generated, by prompt
    std::vector<LogitRows> logits;             // what each was the best of
  };
  // Continues each prompt by `count` tokens. A prompt joins one step after the one before it, so that prompt chunks and
  // decodes mix.
  Greedy greedy(const std::vector<std::vector<int32_t>>& prompts, int64_t count);

 private:
  struct Rank;
  void share(LogitRows& logits, size_t rows);

  RigOptions options_;
  int64_t vocab_;
  std::vector<std::unique_ptr<parallel::Communicator>> own_worlds_;  // ranks as threads
  parallel::Communicator* job_ = nullptr;                            // one rank of several processes
  std::vector<std::unique_ptr<Rank>> ranks_;                         // of this process
};

int32_t best_of(const std::vector<float>& logits);
// Largest |a - b|, and the root mean square of a.
double largest_difference(const LogitRows& a, const LogitRows& b);
double scale_of(const LogitRows& rows);

// How far logits may lie apart when only the order of summation differs: each of the 2 L sums that enter the residual
// stream is a dot product of at most K = max(F, E, Hq D) rounded terms, off by about eps sqrt(K) of its size, and a
// pre-norm network hands a relative error on without amplifying it much. `slack` covers that much and the attention's
// own sums.
double reordering_bound(const ModelConfig& config, double scale, double slack);

}  // namespace accrete::worker
