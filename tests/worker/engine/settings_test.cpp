#include "worker/engine/settings.h"

#include <gtest/gtest.h>

namespace accrete::worker {
namespace {

EngineOptions with_stages(int stages, const char* device) {
  EngineOptions options;
  options.device = device;
  options.topology.pipeline = stages;
  return options;
}

// On GPUs a step beyond one a stage hides the leader's work, where reading the weights once more for it costs less.
TEST(StepsInFlight, OneMoreThanStagesForLightWeightsOnGpus) {
  constexpr int64_t kSmollm2 = 270 << 20, k70bFp8 = int64_t{70} << 30;
  for (int stages : {2, 4, 8}) {
    EXPECT_EQ(steps_in_flight(with_stages(stages, "cuda"), kSmollm2 / stages), stages + 1);
    EXPECT_EQ(steps_in_flight(with_stages(stages, "cuda"), k70bFp8 / stages), stages);
    EXPECT_EQ(steps_in_flight(with_stages(stages, "cpu"), kSmollm2 / stages), stages);
    EXPECT_EQ(most_steps_in_flight(with_stages(stages, "cuda")), stages + 1);
  }
}

TEST(StepsInFlight, OneStageLooksAheadOnGpus) {
  EXPECT_EQ(steps_in_flight(with_stages(1, "cuda"), int64_t{140} << 30), 2);
  EXPECT_EQ(steps_in_flight(with_stages(1, "cpu"), 1), 1);
}

}  // namespace
}  // namespace accrete::worker
