// The update of prompts, in parallel over their tokens (dmc_prompt.cu).
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/dmc/update_args.cuh"

namespace accrete {

// Whether the parallel kernels serve this op: a limited window (the average of a token is then a sum over few neighbours, no scan).
bool prompt_update_fits(const DmcUpdate& op);

// Sequences [first_sequence, first_sequence + sequences) of the step, its tokens up to `tokens` (all of the step); D = 64 pairs.
void launch_prompt_update(const UpdateArgs& args, int tokens, int pairs, cudaStream_t stream);

}  // namespace accrete
