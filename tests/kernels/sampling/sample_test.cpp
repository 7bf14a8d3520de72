// Greedy choice, penalties, bias, forbidden ids, log probabilities and unusable logits.
#include <gtest/gtest.h>

#include "kernels/sampling/sampling.h"
#include "tests/kernels/sampling/reference_sampling.h"

namespace accrete {
namespace {

using Counts = std::vector<std::pair<int32_t, int32_t>>;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct Sampling {
  SamplingParams params;
  Counts generated;
  std::vector<int32_t> prompt, forbidden;

  Sampling() { params.temperature = 0; }
  Sampled operator()(std::vector<float> logits) const {
    SampleRequest request;
    request.params = &params;
    request.counts = {generated, prompt};
    request.forbidden = forbidden;
    return sample_cpu(request, logits);
  }
};

TEST(Sample, GreedyTakesTheLargestAndOfEqualsTheSmallestId) {
  EXPECT_EQ(Sampling()({1, 3, 2}).token, 1);
  EXPECT_EQ(Sampling()({1, 3, 3, 3}).token, 1);
  EXPECT_EQ(Sampling()({-kInfinity, -5, -kInfinity}).token, 1);
}

TEST(Sample, RepetitionPenaltyDividesPositiveAndMultipliesNegativeLogitsOnce) {
  Sampling sampling;
  sampling.params.repetition_penalty = 2;
  sampling.prompt = {0, 1};
  sampling.generated = {{0, 3}, {2, 1}};
  // Token 0 came in the prompt and was generated: 4 becomes 2, not 1. Tokens 1 and 2 halve too, 3 stays.
  EXPECT_EQ(sampling({4, 3.9f, 3.9f, 1.9f}).token, 0);
  EXPECT_EQ(sampling({4, 3.9f, 3.9f, 2.1f}).token, 3);
  // -1 becomes -2, so -1.9, which no rule touches, wins.
  EXPECT_EQ(sampling({-1, -1, -1, -1.9f}).token, 3);
}

TEST(Sample, FrequencyAndPresencePenaltiesCountGeneratedTokensOnly) {
  Sampling sampling;
  sampling.prompt = {3};
  sampling.generated = {{0, 4}, {1, 1}, {2, 0}};
  sampling.params.frequency_penalty = 0.5f;
  EXPECT_EQ(sampling({3.0f, 1.4f, 0.9f, 0.95f}).token, 0);  // 3 - 4 * 0.5 = 1.0
  EXPECT_EQ(sampling({2.9f, 1.4f, 0.5f, 0.95f}).token, 3);  // 0.9, 0.9, 0.5, 0.95
  sampling.params.frequency_penalty = 0;
  sampling.params.presence_penalty = 1;
  EXPECT_EQ(sampling({1.9f, 1.8f, 0.85f, 0.8f}).token, 0);  // once, however often it came
  EXPECT_EQ(sampling({1.8f, 1.8f, 0.85f, 0.8f}).token, 2);  // a token generated 0 times is not present
}

TEST(Sample, BiasComesBeforePenaltiesAndIdsOutsideAreIgnored) {
  Sampling sampling;
  sampling.params.logit_bias = {{2, 5.0f}, {-1, 100.0f}, {4, 100.0f}, {1 << 30, 100.0f}};
  sampling.generated = {{9, 2}, {-3, 1}};
  sampling.forbidden = {-7, 1000};
  EXPECT_EQ(sampling({1, 2, 0, 3}).token, 2);
  // Biased from -1 to 4, then divided by 2; the other order would give -2 + 5 = 3 and win.
  sampling.params.repetition_penalty = 2;
  sampling.prompt = {2};
  EXPECT_EQ(sampling({0, 2.5f, -1, 0}).token, 1);
}

TEST(Sample, ForbiddenTokensAreNeverTaken) {
  Sampling sampling;
  sampling.forbidden = {1};
  sampling.params.logit_bias = {{1, 100.0f}};
  EXPECT_EQ(sampling({1, 9, 2}).token, 2);
  sampling.params.temperature = 100;
  for (sampling.params.seed = 0; sampling.params.seed < 200; ++sampling.params.seed) EXPECT_NE(sampling({1, 9, 2}).token, 1);
}

TEST(Sample, UnusableLogitsGiveNoToken) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (float temperature : {0.0f, 1.0f}) {
    Sampling sampling;
    sampling.params.temperature = temperature;
    sampling.params.logprobs = 2;
    EXPECT_EQ(sampling({1, nan, 2}).token, -1);
    EXPECT_EQ(sampling({nan}).token, -1);
    EXPECT_EQ(sampling({1, kInfinity, 2}).token, -1);
    EXPECT_EQ(sampling({-kInfinity, -kInfinity}).token, -1);
    std::vector<float> long_row(1000, 0.0f);
    long_row[997] = nan;
    EXPECT_EQ(sampling(long_row).token, -1);
    sampling.forbidden = {0, 1, 2};
    EXPECT_EQ(sampling({1, 2, 3}).token, -1);
  }
}

double log_softmax(const std::vector<float>& logits, int32_t token) {
  double sum = 0;
  for (float logit : logits) sum += std::exp(static_cast<double>(logit) - logits[token]);
  return -std::log(sum);
}

// Log probabilities and ranks are those of the raw logits, whatever was done to choose the token.
TEST(Sample, ReportsLogprobsOfTheRawLogits) {
  const auto logits = random_logits(3000, 5);
  Sampling sampling;
  sampling.params.temperature = 0.8f;
  sampling.params.top_p = 0.9f;
  sampling.params.repetition_penalty = 1.7f;
  sampling.params.frequency_penalty = 0.3f;
  sampling.params.logit_bias = {{17, 30.0f}, {5, -3.0f}};
  sampling.params.logprobs = 5;
  sampling.generated = {{17, 2}, {40, 1}, {17, 1}};
  sampling.prompt = {40, 41, 17};
  sampling.forbidden = {static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin())};
  const Sampled sampled = sampling(logits);
  EXPECT_EQ(sampled.token, 17);
  EXPECT_NEAR(sampled.logprob, log_softmax(logits, 17), 2e-6);
  EXPECT_EQ(sampled.rank, 1 + std::count_if(logits.begin(), logits.end(), [&](float l) { return l > logits[17]; }));
  ASSERT_EQ(sampled.top.size(), 5u);
  EXPECT_EQ(sampled.top[0].token, sampling.forbidden[0]);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_NEAR(sampled.top[i].logprob, log_softmax(logits, sampled.top[i].token), 2e-6);
    if (i > 0) {
      EXPECT_LT(sampled.top[i].logprob, sampled.top[i - 1].logprob);
    }
  }
}

TEST(Sample, ComputesNoLogprobsUnlessAsked) {
  const Sampled sampled = Sampling()({1, 3, 2});
  EXPECT_EQ(sampled.rank, 0);
  EXPECT_TRUE(sampled.top.empty());
}

TEST(Score, RanksTiesByIdAndNamesTheBest) {
  const std::vector<float> logits{2, 3, 2, 3, -kInfinity};
  EXPECT_EQ(score_cpu(logits, 1, 0).rank, 1);
  EXPECT_EQ(score_cpu(logits, 3, 0).rank, 2);
  EXPECT_EQ(score_cpu(logits, 0, 0).rank, 3);
  EXPECT_EQ(score_cpu(logits, 2, 0).rank, 4);
  EXPECT_EQ(score_cpu(logits, 4, 0).logprob, -kInfinity);
  const Sampled scored = score_cpu(logits, 2, 3);
  ASSERT_EQ(scored.top.size(), 3u);
  EXPECT_EQ(scored.top[0].token, 1);
  EXPECT_EQ(scored.top[1].token, 3);
  EXPECT_EQ(scored.top[2].token, 0);
  EXPECT_NEAR(scored.logprob, log_softmax(logits, 2), 1e-6);
  EXPECT_EQ(score_cpu(logits, 2, 99).top.size(), 5u);  // more than there are
  EXPECT_EQ(score_cpu(std::vector<float>{1, std::nanf("")}, 0, 1).token, -1);
}

TEST(Score, SurvivesLargeLogits) {
  const std::vector<float> logits{3e38f, -3e38f, 2.9e38f};
  EXPECT_EQ(score_cpu(logits, 0, 0).logprob, 0.0f);
  Sampling sampling;
  sampling.params.temperature = 1;
  EXPECT_EQ(sampling(logits).token, 0);
}

}  // namespace
}  // namespace accrete
