// rms_norm_cuda's other half: what it does when factors of delta or fp8 rows are asked for (rms_norm_fp8.cu). It has checked the rest.
#pragma once

#include "kernels/norm/rms_norm.h"

namespace accrete {

void rms_norm_fp8_cuda(const RmsNorm& op, Stream& stream);

}  // namespace accrete
