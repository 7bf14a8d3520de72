// SmolLM2 on a GPU beside the CPU: log probabilities of a text, perplexity, greedy continuations of 20 prompts by 256 tokens.
#if defined(ACCRETE_CUDA)

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "kernels/device/device_memory.h"
#include "tests/worker/gpu/gpu_runs.h"
#include "worker/model/tensor_source.h"

namespace accrete::worker {
namespace {

class GpuSmolLm2 : public testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (device_count(&why) == 0) GTEST_SKIP() << why;
    const char* model = std::getenv("ACCRETE_TEST_MODEL");
    if (!model) GTEST_SKIP() << "ACCRETE_TEST_MODEL names no model";
    const auto source = open_model(model, {});
    if (source->config().layers != 30 || source->config().vocab != 49152) GTEST_SKIP() << "ACCRETE_TEST_MODEL is not SmolLM2-135M, whose text this is";
    text_ = ids_of(golden("smollm2_reference.json")["text"]);
    model_ = model;
  }

  static nlohmann::json golden(const std::string& name) {
    std::ifstream file(std::string(ACCRETE_SOURCE_DIR) + "/tests/golden/llama/" + name);
    return nlohmann::json::parse(file);
  }
  static std::vector<int32_t> ids_of(const nlohmann::json& fields) { return fields["ids"].get<std::vector<int32_t>>(); }

  EngineOptions options_for(const std::string& device) const {
    EngineOptions options;
    options.model = model_;
    options.device = device;
    options.max_num_seqs = 20;
    options.max_model_len = 2048;
    options.kv_cache_memory_bytes = int64_t{2} << 30;
    return options;
  }

  std::string model_;
  std::vector<int32_t> text_;
};

// As in gpu_replica_test.cpp, for 30 layers and logits whose deviation is about 3: a walk of 4 L + 2 steps of 2^-9, four deviations, and a
// log probability is the difference of two such values.
constexpr double kBound = 4 * 0x1p-9 * 11.0 * 3 * 1.41;

Request scored(const std::vector<int32_t>& text) {
  Request request;
  request.id = 1;
  request.prompt = text;
  request.prompt_logprobs = 0;
  request.max_tokens = 0;
  return request;
}

TEST_F(GpuSmolLm2, ScoresTheTextAsTheCpuDoes) {
  const std::vector<Request> requests{scored(text_)};
  double perplexity[2] = {}, largest = 0, squares = 0;
  const Outputs cpu = run(options_for("cpu"), requests), gpu = run(options_for("cuda"), requests);
  const auto &wanted = cpu.at(1).prompt_tokens, &found = gpu.at(1).prompt_tokens;
  ASSERT_EQ(wanted.size(), text_.size() - 1);
  ASSERT_EQ(found.size(), wanted.size());
  for (size_t i = 0; i < wanted.size(); ++i) {
    const double difference = found[i].logprob - wanted[i].logprob;
    largest = std::max(largest, std::abs(difference));
    squares += difference * difference;
    perplexity[0] -= wanted[i].logprob;
    perplexity[1] -= found[i].logprob;
  }
  const auto count = static_cast<double>(wanted.size());
  for (double& value : perplexity) value = std::exp(value / count);
  fmt::print("SmolLM2, {} tokens: perplexity CPU {:.5f}, GPU {:.5f}; log probabilities differ by {:.4f} at most, {:.4f} root mean square\n",
             wanted.size(), perplexity[0], perplexity[1], largest, std::sqrt(squares / count));
  EXPECT_LT(largest, kBound);
  EXPECT_NEAR(perplexity[1] / perplexity[0], 1.0, 0.01);
}

// Over 16,384 tokens: on a tenth of them the ratio moves by two per cent from one build to the next.
TEST_F(GpuSmolLm2, Fp8KeepsThePerplexity) {
  constexpr int64_t kWindow = 2048;
  EngineOptions options = options_for("cuda");
  const std::vector<int32_t> novel = ids_of(golden("emma_smollm2.json"));
  std::vector<Request> windows;
  for (size_t begin = 0; begin + kWindow <= novel.size(); begin += kWindow) {
    windows.push_back(scored({novel.begin() + begin, novel.begin() + begin + kWindow}));
    windows.back().id = static_cast<RequestId>(windows.size());
  }
  ASSERT_EQ(windows.size(), 8U);
  double perplexity[2] = {};
  for (int i = 0; i < 2; ++i) {
    options.quantization = i == 0 ? "" : "fp8";
    int64_t count = 0;
    for (const auto& [id, output] : run(options, windows)) {
      count += static_cast<int64_t>(output.prompt_tokens.size());
      for (const TokenOut& token : output.prompt_tokens) perplexity[i] -= token.logprob;
    }
    ASSERT_EQ(count, 8 * (kWindow - 1));
    perplexity[i] = std::exp(perplexity[i] / static_cast<double>(count));
  }
  fmt::print("SmolLM2, {} tokens: perplexity bf16 {:.5f}, fp8 {:.5f}\n", novel.size(), perplexity[0], perplexity[1]);
  EXPECT_LT(perplexity[1] / perplexity[0], 1.03);
}

TEST_F(GpuSmolLm2, ContinuesAsTheCpuDoes) {
  constexpr int64_t kPrompts = 20, kTokens = 256;
  std::vector<Request> requests;
  for (int64_t i = 0; i < kPrompts; ++i) {
    Request request;
    request.id = static_cast<RequestId>(i + 1);
    request.prompt.assign(text_.begin() + i * 60, text_.begin() + i * 60 + 20 + i);
    request.sampling.temperature = 0.0f;
    request.sampling.logprobs = 2;
    request.max_tokens = kTokens;
    request.ignore_eos = true;
    requests.push_back(request);
  }
  const Outputs cpu = run(options_for("cpu"), requests), gpu = run(options_for("cuda"), requests);
  for (const auto& [id, want] : cpu) {
    const RequestOutput& have = gpu.at(id);
    ASSERT_EQ(have.tokens.size(), want.tokens.size());
    size_t same = 0;
    while (same < want.tokens.size() && have.tokens[same].id == want.tokens[same].id) ++same;
    if (same == want.tokens.size()) {
      fmt::print("prompt {:2}: all {} tokens equal\n", id, same);
      continue;
    }
    const double gap = want.tokens[same].top[0].logprob - want.tokens[same].top[1].logprob;
    fmt::print("prompt {:2}: first difference at token {}, where the CPU's two best are {:.4f} apart\n", id, same, gap);
    EXPECT_LT(gap, kBound) << "prompt " << id << " token " << same;
  }
}

}  // namespace
}  // namespace accrete::worker

#endif
