// What the leader tells every rank to do in one step, what each rank answers, and both as bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "cache/kv_cache.h"
#include "worker/engine/request.h"

namespace accrete::worker {

// In place of a token that the step before samples: the ranks know it, the leader does not yet.
inline constexpr int32_t kUnreadToken = -1;

// How a request's tokens are chosen: sent with the first item after it got its row.
struct SamplerSetup {
  SamplingParams params;
  int64_t prompt_tokens = 0;
  int64_t min_tokens = 0;
  std::vector<int32_t> ends;    // end-of-sequence and stop ids: forbidden below min_tokens
  std::vector<int32_t> tokens;  // prompt and generated; empty when no penalty needs them
};

// One sequence's tokens of a step.
struct PlanItem {
  RequestId id = 0;
  int32_t row = 0;              // in the cache tables
  uint64_t decision_key = 0;
  int64_t begin = 0;            // absolute position of the first token
  std::vector<int32_t> tokens;  // kUnreadToken: the one last sampled for this row
  bool sample = false;          // a token follows the last one
  int32_t score_from = -1;      // prompt_logprobs: index in tokens of the first one whose successor is scored; -1: none
  int32_t score_top = 0;
  int32_t next_token = -1;      // the prompt token after the last of `tokens`, to be scored; -1: none
  bool pretend = false;         // Request::pretend_prompt
  std::optional<SamplerSetup> setup;

  // Rows of logits it needs: the scored tokens, then the sampled one.
  int64_t score_rows() const;
  bool prompt() const { return tokens.size() > 1 || begin == 0; }
  int64_t logit_rows() const { return score_rows() + (sample ? 1 : 0); }
};

// A row's cache moved between the arena and host memory.
struct RowSwap {
  RequestId id = 0;
  int32_t row = 0;
};

struct StepPlan {
  uint64_t step = 0;
  bool stop = false;              // the last plan: leave the loop
  bool want_heads = false;        // answer with slot counts per head
  // In this order, before the items run.
  std::vector<int32_t> releases;  // rows of finished or recomputed sequences
  std::vector<RowSwap> swap_outs;
  std::vector<RowSwap> swap_ins;
  std::vector<RequestId> drops;   // finished: forget samplers and swapped caches
  std::vector<PlanItem> items;

  int64_t tokens() const;
  // Whether there are prompts and all are pretended: then nothing of the step is computed.
  bool pretends() const;
  bool empty() const { return !stop && !want_heads && releases.empty() && swap_outs.empty() && swap_ins.empty() && drops.empty() && items.empty(); }
};

struct ItemResult {
  std::optional<TokenOut> sampled;   // id -1: the logits were not finite
  std::vector<TokenOut> scored;
};

struct StepReport {
  uint64_t step = 0;
  int64_t free_pages = 0;
  bool exhausted = false;
  double device_seconds = 0.0;                  // that the step took on a GPU
  std::vector<cache::RowUse> uses;              // one an item, after the step
  std::vector<std::vector<int32_t>> released;   // slot counts [L_local * Hkv_local] of each released row, as they were
  std::vector<double> head_slots;               // want_heads: mean over occupied rows [L_local * Hkv_local]
  std::vector<ItemResult> results;              // of the sampling rank, one an item; else empty
};

std::vector<std::byte> to_bytes(const StepPlan& plan);
std::vector<std::byte> to_bytes(const StepReport& report);
// Both come from a rank of the same binary: bytes that do not fit are a bug.
StepPlan plan_from(std::span<const std::byte> bytes);
StepReport report_from(std::span<const std::byte> bytes);

}  // namespace accrete::worker
