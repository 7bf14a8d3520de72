// What a step on a GPU reads and what it answers, each as one block that one copy moves. A layout depends on the counts alone, so a graph
// captured for a batch finds its fields at the same places in every replay. Owned by the executor. Exists in builds with CUDA.
#pragma once

#include <cstddef>
#include <cstdint>

#include "kernels/device/device_memory.h"
#include "kernels/paging/step_batch.h"
#include "worker/engine/step_plan.h"
#include "worker/model/llama_stage.h"

namespace accrete::worker {

struct StepCounts {
  int64_t tokens = 0;     // T
  int64_t sequences = 0;  // B_step
  int64_t samples = 0;    // n: logit rows from which a token is sampled, first
  int64_t scores = 0;     // m: logit rows that score a prompt token, after them

  bool operator==(const StepCounts&) const = default;
};
StepCounts counts_of(const StepPlan& plan);

// Fields of the input block.
struct StepInputs {
  // The fields' places in `memory` (host or device); bytes() of it are used.
  StepInputs(const StepCounts& counts, std::byte* memory);
  static size_t bytes(const StepCounts& counts) { return StepInputs(counts, nullptr).end; }

  View<uint64_t, 1> key;             // [B]
  View<int32_t, 1> ids;              // [T]
  View<int32_t, 1> position;         // [T]
  View<int32_t, 1> sequence;         // [T]
  View<int32_t, 1> row;              // [B] negative: padding
  View<int32_t, 1> token_begin;      // [B + 1]
  View<int32_t, 1> logit_tokens;     // [n + m]
  View<int32_t, 1> sample_row;       // [n] row of caches and samplers; negative: padding
  View<int32_t, 1> sample_position;  // [n]
  View<int32_t, 1> score_token;      // [m]
  View<int32_t, 1> score_top;        // [m]
  size_t end = 0;
};

// Writes the plan's items; what the counts have beyond them becomes padding.
void fill_inputs(const StepPlan& plan, const StepCounts& counts, StepInputs& inputs);
// The step as the stage wants it, from inputs on the device.
StageInput stage_input(const StepPlan& plan, const StepInputs& inputs);
// The first items of one token each that have earlier ones cached.
int64_t leading_decodes(const StepPlan& plan);

// Fields of the output block.
struct StepOutputs {
  StepOutputs(const StepCounts& counts, std::byte* memory);
  static size_t bytes(const StepCounts& counts) { return StepOutputs(counts, nullptr).end; }

  View<int64_t, 2> uses;          // [B, 4] of each sequence's row
  View<int64_t, 1> pool;          // [2] free pages; whether a take has failed
  // [n + m]: sampled, then scored tokens
  View<int32_t, 1> token;
  View<float, 1> logprob;
  View<int32_t, 1> rank;
  View<int32_t, 2> top_tokens;    // [n + m, 20]
  View<float, 2> top_logprobs;    // [n + m, 20]
  size_t end = 0;
};

// The results of the plan's items, in their order, from outputs on the host.
std::vector<ItemResult> read_results(const StepPlan& plan, const StepOutputs& outputs);

}  // namespace accrete::worker
