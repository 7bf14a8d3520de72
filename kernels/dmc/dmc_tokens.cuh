// The update token by token (dmc_tokens.cu).
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/dmc/update_args.cuh"

namespace accrete {

// Sequences [0, args.sequences), the first of the step, with one token each. Own entries are left alone.
void launch_decode_update(const UpdateArgs& args, cudaStream_t stream);

// Sequences [args.first_sequence, args.first_sequence + args.sequences) of any length, whatever the window.
void launch_token_update(const UpdateArgs& args, cudaStream_t stream);

}  // namespace accrete
