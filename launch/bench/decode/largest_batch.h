// How many sequences of a given length fit a replica at once.
#pragma once

#include <cstdint>
#include <vector>

#include "worker/engine/engine_options.h"
#include "worker/model/model_config.h"

namespace accrete::launch {

// One rank, as a first start with a single row has shown it.
struct RankMemory {
  int64_t pages = 0;       // then
  int64_t page_bytes = 0;
  int layer_begin = 0, layer_end = 0, kv_head_begin = 0, kv_head_end = 0;
};

// Pages that a sequence of `tokens` holds on the rank, with what the ledger keeps back for its next tokens.
double pages_of_sequence(const worker::EngineOptions& options, const worker::ModelConfig& model, const RankMemory& rank, int64_t tokens);

// The largest batch of which every rank holds all sequences at `tokens`, tables, compression state, sampling and graphs counted.
int64_t largest_batch(const worker::EngineOptions& options, const worker::ModelConfig& model, const std::vector<RankMemory>& ranks, int64_t tokens);

}  // namespace accrete::launch
