// The update of prompts, in parallel over their tokens (dmc_prompt.cu).
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/dmc/update_args.cuh"

namespace accrete {

// Whether the parallel kernels serve this op: a limited window (the average of a token is then a sum over few neighbours, no scan).
bool prompt_update_fits(const DmcUpdate& op);

// Sequences [args.first_sequence, args.first_sequence + args.sequences), the last of the step.
void launch_prompt_update(const UpdateArgs& args, cudaStream_t stream);

}  // namespace accrete
