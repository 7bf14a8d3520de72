// SmolLM2 against llama.cpp with the same weights (make_smollm2_golden.py), both in float32.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <fstream>
#include <nlohmann/json.hpp>

#include "tests/worker/llama/llama_rig.h"

namespace accrete::worker {

namespace {

class AgainstLlamaCpp : public testing::Test {
 protected:
  void SetUp() override {
    const char* model = std::getenv("ACCRETE_TEST_MODEL");
    if (!model) GTEST_SKIP() << "ACCRETE_TEST_MODEL names no model";
    source_ = open_model(model, {});
    if (source_->config().layers != 30 || source_->config().vocab != 49152)
      GTEST_SKIP() << "ACCRETE_TEST_MODEL is not SmolLM2-135M, which the reference was made with";
    std::ifstream file(std::string(ACCRETE_SOURCE_DIR) + "/tests/golden/llama/smollm2_reference.json");
    reference_ = nlohmann::json::parse(file);
  }

  // llama.cpp's own arithmetic is float32 too, so twice the bound of one side.
  double bound(double scale) const { return reordering_bound(source_->config(), scale, 8); }

  std::unique_ptr<TensorSource> source_;
  nlohmann::json reference_;
};

double log_probability(const std::vector<float>& logits, int32_t token) {
  double largest = logits[0], sum = 0;
  for (float logit : logits) largest = std::max<double>(largest, logit);
  for (float logit : logits) sum += std::exp(logit - largest);
  return logits[static_cast<size_t>(token)] - largest - std::log(sum);
}

TEST_F(AgainstLlamaCpp, GreedyContinuationsAreTheSame) {
  std::vector<std::vector<int32_t>> prompts;
  for (const auto& one : reference_["continuations"]) prompts.push_back(one["prompt"].get<std::vector<int32_t>>());
  RigOptions options;
  options.sequences = static_cast<int64_t>(prompts.size());
  options.max_tokens = 256;
  options.chunk = 32;
  LlamaRig rig(*source_, options);
  const LlamaRig::Greedy ours = rig.greedy(prompts, 64);
  double largest = 0;
  for (size_t i = 0; i < prompts.size(); ++i) {
    const auto& theirs = reference_["continuations"][i];
    EXPECT_EQ(ours.tokens[i], theirs["generated"].get<std::vector<int32_t>>()) << "prompt " << i;
    const double limit = bound(scale_of(ours.logits[i]));
    for (size_t step = 0; step < ours.logits[i].size(); ++step) {
      for (const auto& [token, logit] : theirs["best"][step].get<std::vector<std::pair<int32_t, double>>>()) {
        const double difference = std::abs(ours.logits[i][step][static_cast<size_t>(token)] - logit);
        ASSERT_LT(difference, limit) << "prompt " << i << " step " << step << " token " << token;
        largest = std::max(largest, difference);
      }
    }
  }
  RecordProperty("largest_logit_difference", std::to_string(largest));
}

TEST_F(AgainstLlamaCpp, PerplexityIsTheSame) {
  const auto ids = reference_["text"]["ids"].get<std::vector<int32_t>>();
  const auto theirs = reference_["text"]["logprobs"].get<std::vector<double>>();
  RigOptions options;
  options.sequences = 1;
  options.max_tokens = static_cast<int64_t>(ids.size());
  options.chunk = 128;
  LlamaRig rig(*source_, options);
  double sum = 0, largest = 0, scale = 0;
  for (size_t begin = 0; begin + 1 < ids.size(); begin += options.chunk) {
    const size_t size = std::min<size_t>(options.chunk, ids.size() - 1 - begin);
    RigStep step;
    step.add(0, static_cast<int32_t>(begin), std::span(ids).subspan(begin, size), RigStep::Want::all);
    const LogitRows rows = rig.step(step);
    scale = std::max(scale, scale_of(rows));
    for (size_t i = 0; i < size; ++i) {
      const double ours = log_probability(rows[i], ids[begin + i + 1]);
      largest = std::max(largest, std::abs(ours - theirs[begin + i]));
      sum += ours;
    }
  }
  const double perplexity = std::exp(-sum / static_cast<double>(ids.size() - 1));
  EXPECT_LT(largest, 2 * bound(scale));  // a log probability is a logit less a mean of logits
  EXPECT_NEAR(perplexity, reference_["text"]["perplexity"].get<double>(), 1e-3);
  RecordProperty("perplexity", std::to_string(perplexity));
  RecordProperty("largest_logprob_difference", std::to_string(largest));
}

}  // namespace

}  // namespace accrete::worker
