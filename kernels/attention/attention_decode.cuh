// Launchers of the two attention kernels (attention_decode.cu, attention_prompt.cu).
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/attention/attention.h"

namespace accrete {

// When the batch has a prompt_share, prompts are launched first and decodes right behind, which then run beside them; what is launched behind the
// decodes waits for both. Without prompts the first launches nothing; the second is for batches with decodes.
void launch_prompt_attention(const Attention& op, cudaStream_t stream);
void launch_decode_attention(const Attention& op, cudaStream_t stream);

}  // namespace accrete
