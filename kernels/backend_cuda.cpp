#include "kernels/backend.h"

namespace accrete {

const Backend& cuda_backend() {
  static constexpr Backend kBackend{.name = "cuda",
                                    .embedding = embedding_cuda,
                                    .rms_norm = rms_norm_cuda,
                                    .linear = linear_cuda,
                                    .rope_angles = rope_angles_cuda,
                                    .dmc_update = dmc_update_cuda,
                                    .attention = attention_cuda,
                                    .silu_mul = silu_mul_cuda,
                                    .join_logits = join_logits_cuda,
                                    .plan_decode = plan_decode_cuda};
  return kBackend;
}

}  // namespace accrete
