// What is not a number ends the request it belongs to, not its neighbours and not the engine; on the CPU and, where there is one, on a GPU.
#include <gtest/gtest.h>

#if defined(ACCRETE_CUDA)
#include "kernels/device/device_memory.h"
#endif
#include "tests/worker/gpu/gpu_runs.h"
#include "tests/worker/gpu/nan_model.h"

namespace accrete::worker {
namespace {

std::vector<Request> requests_of(bool with_nan) {
  std::vector<Request> requests;
  for (int i = 0; i < 9; ++i) {
    Request request;
    request.id = static_cast<RequestId>(i + 1);
    for (int t = 0; t < 20 + i; ++t) request.prompt.push_back(10 + (t * 7 + i) % 50);
    if (with_nan && i % 3 == 1) request.prompt[12] = testing::kNanToken;
    request.sampling.temperature = 0.0f;
    request.max_tokens = 20;
    request.ignore_eos = true;
    request.sampling.logit_bias = {{testing::kNanToken, -1000.0f}};  // nobody else generates it
    requests.push_back(std::move(request));
  }
  return requests;
}

void check(const std::string& device) {
  const testing::TempDir directory;
  testing::write_nan_model(directory);
  EngineOptions options;
  options.model = directory.path();
  options.device = device;
  options.max_num_seqs = 4;
  options.max_num_batched_tokens = 32;
  options.max_model_len = 128;
  options.kv_cache_memory_bytes = 32 << 20;
  options.cpu_threads = 1;
  const Outputs wanted = run(options, requests_of(false)), found = run(options, requests_of(true));
  for (const auto& [id, output] : found) {
    if (id % 3 == 2) {
      EXPECT_EQ(output.finish, FinishReason::error) << id;
      EXPECT_NE(output.error.find("not finite"), std::string::npos) << output.error;
      EXPECT_TRUE(output.tokens.empty());
      continue;
    }
    EXPECT_EQ(output.finish, FinishReason::length) << id << " " << output.error;
    ASSERT_EQ(output.tokens.size(), 20u);
    for (const TokenOut& token : output.tokens) EXPECT_GE(token.id, 0);
    EXPECT_EQ(output.tokens[0].id, wanted.at(id).tokens[0].id) << id;
  }
}

TEST(NanModel, EndsItsRequestsAlone) { check("cpu"); }

#if defined(ACCRETE_CUDA)
TEST(GpuNanModel, EndsItsRequestsAlone) {
  std::string why;
  if (device_count(&why) == 0) GTEST_SKIP() << why;
  check("cuda");
}
#endif

}  // namespace
}  // namespace accrete::worker
