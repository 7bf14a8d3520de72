#include "kernels/backend.h"

#include <gtest/gtest.h>

namespace accrete {
namespace {

TEST(Backend, TheCpuHasEveryOperation) {
  const Backend& cpu = cpu_backend();
  EXPECT_STREQ(cpu.name, "cpu");
  EXPECT_EQ(cpu.embedding, embedding_cpu);
  EXPECT_EQ(cpu.rms_norm, rms_norm_cpu);
  EXPECT_EQ(cpu.linear, linear_cpu);
  EXPECT_EQ(cpu.rope_angles, rope_angles_cpu);
  EXPECT_EQ(cpu.dmc_update, dmc_update_cpu);
  EXPECT_EQ(cpu.attention, attention_cpu);
  EXPECT_EQ(cpu.silu_mul, silu_mul_cpu);
  EXPECT_EQ(cpu.join_logits, join_logits_cpu);
}

}  // namespace
}  // namespace accrete
