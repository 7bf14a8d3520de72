// Where a decode step's time goes: some steps of an engine without graphs whose operations are timed one by one on rank 0, sums over shards
// among them. In builds with CUDA, for one pipeline stage; nothing elsewhere.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "worker/engine/engine_options.h"

namespace accrete::launch {

using Parts = std::vector<std::pair<std::string, double>>;  // operation, milliseconds

// A step's parts, longest first, of `batch` sequences of about `context` tokens. Throws what a rank throws.
Parts step_parts(const worker::EngineOptions& options, int64_t batch, int64_t context);

}  // namespace accrete::launch
