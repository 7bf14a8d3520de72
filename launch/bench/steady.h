// A load that has been going on for long, without waiting for it: as many sequences as run at once start evenly spread over their lives, on
// caches of random entries; those that end are followed by whole requests, whose prompts are computed beside the others' decodes.
#pragma once

#include <cstdint>
#include <vector>

#include "launch/bench/dataset.h"
#include "launch/engine/offline_engine.h"

namespace accrete::launch {

struct SteadyLoad {
  int64_t running = 0;      // sequences at once
  int64_t input_len = 0;
  int64_t output_len = 0;
  int64_t followers = 0;    // whole requests behind the first ones
  int64_t step_tokens = 0;  // of an iteration, while the first ones come in
  int64_t vocab = 0;
  uint64_t seed = 0;
};

// The first `running` ones pretend their prompts. They come in over T steps, oldest first, so long that ends follow each other evenly from
// then on. Throws UsageError when T reaches output_len.
std::vector<BenchPrompt> steady_prompts(const SteadyLoad& load);

struct SteadyRates {
  double seconds = 0.0;        // looked at, from one first token of a follower to another, so that whole prompts lie between
  int64_t output_tokens = 0;   // within them
  int64_t prompt_tokens = 0;   // of requests whose first token came within them
  int64_t iterations = 0;      // that gave tokens
  double running = 0.0;        // sequences, at the end
  double compression_ratio = 0.0;
  bool ran_dry = false;        // no follower was left: fewer sequences ran at the end
};

// Looks at `seconds` and a little more from the first follower's first token on, then ends everything. Throws when fewer than
// two followers had one.
SteadyRates measure_steady(OfflineEngine& engine, const std::vector<BenchPrompt>& prompts, const SteadyLoad& load, double seconds);

}  // namespace accrete::launch
