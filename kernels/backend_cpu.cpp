#include "kernels/backend.h"

namespace accrete {

const Backend& cpu_backend() {
  static constexpr Backend kBackend{.name = "cpu",
                                    .embedding = embedding_cpu,
                                    .rms_norm = rms_norm_cpu,
                                    .linear = linear_cpu,
                                    .rope_angles = rope_angles_cpu,
                                    .dmc_update = dmc_update_cpu,
                                    .attention = attention_cpu,
                                    .silu_mul = silu_mul_cpu,
                                    .join_logits = join_logits_cpu,
                                    .plan_decode = nullptr};
  return kBackend;
}

}  // namespace accrete
