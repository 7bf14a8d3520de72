// Where a decode step's time goes: some steps of an engine without graphs whose operations are timed one by one. In builds with CUDA, for one
// rank; nothing elsewhere.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "worker/engine/engine_options.h"

namespace accrete::launch {

// Milliseconds of a step by operation, longest first, of `batch` sequences of about `context` tokens.
std::vector<std::pair<std::string, double>> step_parts(const worker::EngineOptions& options, int64_t batch, int64_t context);

}  // namespace accrete::launch
