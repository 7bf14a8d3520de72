// Benchmark prompts as requests of the engine itself.
#pragma once

#include <vector>

#include "launch/bench/dataset.h"
#include "worker/engine/request.h"

namespace accrete::launch {

// Greedy, end-of-sequence ignored, so that every request runs to its full length.
std::vector<worker::Request> engine_requests(const std::vector<BenchPrompt>& prompts);

}  // namespace accrete::launch
