// Launchers of the two attention kernels (attention_decode.cu, attention_prompt.cu).
#pragma once

#include <cuda_runtime_api.h>

#include "kernels/attention/attention.h"

namespace accrete {

void launch_decode_attention(const Attention& op, cudaStream_t stream);
void launch_prompt_attention(const Attention& op, cudaStream_t stream);

}  // namespace accrete
