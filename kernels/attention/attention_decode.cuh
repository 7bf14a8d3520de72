// Launchers of the two attention kernels (attention_decode.cu, attention_prompt.cu).
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/attention/attention.h"

namespace accrete {

// Neither does anything without sequences of its kind. When the batch has a prompt_share, prompts are launched first and decodes right behind, which
// then run beside them; what is launched behind the decodes waits for both.
void launch_prompt_attention(const Attention& op, cudaStream_t stream);
void launch_decode_attention(const Attention& op, cudaStream_t stream);

}  // namespace accrete
