// Temperature and the filters, through sample_cpu: against the slow reference, and statistically.
#include <gtest/gtest.h>

#include <map>

#include "kernels/sampling/sampling.h"
#include "tests/kernels/sampling/reference_sampling.h"

namespace accrete {
namespace {

int32_t draw(const SamplingParams& params, std::vector<float> logits, uint64_t position) {
  SampleRequest request;
  request.params = &params;
  request.position = position;
  return sample_cpu(request, logits).token;
}

// The token in which the uniform falls. Where the uniform is within 1e-6 of the edge of two tokens both are right: the real
// one sums floats.
void expect_reference(const SamplingParams& params, const std::vector<float>& logits, int draws) {
  const auto distribution = reference_distribution(logits, params);
  for (int position = 0; position < draws; ++position) {
    const double uniform = philox_uniform(params.seed, position);
    const int32_t token = draw(params, logits, position);
    double begin = 0;
    bool found = false;
    for (const auto& [candidate, probability] : distribution) {
      if (candidate == token) {
        EXPECT_GT(uniform, begin - 1e-6) << "position " << position << " token " << token;
        EXPECT_LT(uniform, begin + probability + 1e-6) << "position " << position << " token " << token;
        found = true;
      }
      begin += probability;
    }
    EXPECT_TRUE(found) << "token " << token << " was filtered out, position " << position;
  }
}

SamplingParams filters(float temperature, int32_t top_k, float top_p, float min_p) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  params.min_p = min_p;
  params.seed = 42;
  return params;
}

const std::vector<SamplingParams>& combinations() {
  static const std::vector<SamplingParams> all{
      filters(1, 0, 1, 0),        filters(0.7f, 0, 1, 0),      filters(3, 0, 1, 0),         filters(1, 1, 1, 0),
      filters(1, 5, 1, 0),        filters(1, 40, 1, 0),        filters(1, 1000000, 1, 0),   filters(1, -1, 1, 0),
      filters(1, 0, 0.5f, 0),     filters(1, 0, 0.9f, 0),      filters(2, 0, 0.99f, 0),     filters(5, 0, 0.999f, 0),
      filters(1, 0, 1e-6f, 0),    filters(1, 0, 1, 0.1f),      filters(1, 0, 1, 1.0f),      filters(1.5f, 0, 0.8f, 0.02f),
      filters(1, 20, 0.7f, 0),    filters(1.3f, 50, 1, 0.05f), filters(1, 100, 0.95f, 0.01f)};
  return all;
}

TEST(Choose, EqualsTheReferenceForEveryFilter) {
  for (int64_t vocabulary : {1, 2, 17, 300, 2000}) {
    const auto logits = random_logits(vocabulary, static_cast<unsigned>(vocabulary));
    for (const SamplingParams& params : combinations()) {
      SCOPED_TRACE(testing::Message() << "V " << vocabulary << " T " << params.temperature << " k " << params.top_k << " p "
                                      << params.top_p << " min " << params.min_p);
      expect_reference(params, logits, 60);
    }
  }
}

TEST(Choose, EqualsTheReferenceForALargeVocabulary) {
  const auto logits = random_logits(128256, 7, 2.0f);
  for (const SamplingParams& params : combinations()) {
    SCOPED_TRACE(testing::Message() << "T " << params.temperature << " k " << params.top_k << " p " << params.top_p << " min "
                                    << params.min_p);
    expect_reference(params, logits, 3);
  }
}

// Equal logits: top-k and top-p keep the smallest ids.
TEST(Choose, BreaksTiesByTheSmallestId) {
  const std::vector<float> logits(100, 1.5f);
  for (uint64_t position = 0; position < 50; ++position) {
    EXPECT_LT(draw(filters(1, 3, 1, 0), logits, position), 3);
    EXPECT_LT(draw(filters(1, 0, 0.095f, 0), logits, position), 10);
    EXPECT_LT(draw(filters(1, 8, 0.5f, 0), logits, position), 4);
  }
}

TEST(Choose, NeverTakesAnImpossibleToken) {
  std::vector<float> logits(64, -std::numeric_limits<float>::infinity());
  logits[5] = 0;
  logits[60] = -2;
  for (const SamplingParams& params : combinations()) {
    for (uint64_t position = 0; position < 20; ++position) {
      const int32_t token = draw(params, logits, position);
      EXPECT_TRUE(token == 5 || token == 60) << token;
    }
  }
}

// Chi-square of 20,000 draws against a distribution over ten tokens: 9 degrees of freedom, 45 is exceeded with probability 1e-6.
double chi_square(const SamplingParams& params, const std::vector<float>& logits, const SamplingParams& claimed) {
  constexpr int kDraws = 20000;
  std::map<int32_t, int> counts;
  for (int position = 0; position < kDraws; ++position) ++counts[draw(params, logits, position)];
  double sum = 0;
  for (const auto& [token, probability] : reference_distribution(logits, claimed)) {
    sum += std::pow(counts[token] - kDraws * probability, 2) / (kDraws * probability);
    counts.erase(token);
  }
  return counts.empty() ? sum : std::numeric_limits<double>::infinity();
}

TEST(Choose, DrawsWithTheRightFrequencies) {
  const std::vector<float> logits{0.3f, -1.0f, 1.7f, 0.0f, 0.9f, -0.4f, 1.1f, -2.0f, 0.5f, 0.2f};
  EXPECT_LT(chi_square(filters(1, 0, 1, 0), logits, filters(1, 0, 1, 0)), 45);
  EXPECT_LT(chi_square(filters(0.6f, 0, 1, 0), logits, filters(0.6f, 0, 1, 0)), 45);
  EXPECT_LT(chi_square(filters(1, 0, 0.8f, 0), logits, filters(1, 0, 0.8f, 0)), 45);
  EXPECT_LT(chi_square(filters(1, 4, 1, 0), logits, filters(1, 4, 1, 0)), 45);
  EXPECT_LT(chi_square(filters(1, 0, 1, 0.3f), logits, filters(1, 0, 1, 0.3f)), 45);
  // The test can fail: a temperature off by a tenth shows.
  EXPECT_GT(chi_square(filters(1, 0, 1, 0), logits, filters(1.1f, 0, 1, 0)), 45);
}

TEST(Choose, DependsOnSeedAndPositionAlone) {
  const auto logits = random_logits(500, 3);
  SamplingParams params = filters(1.5f, 0, 0.95f, 0);
  std::vector<int32_t> first, again, other;
  for (uint64_t position = 0; position < 40; ++position) first.push_back(draw(params, logits, position));
  for (uint64_t position = 40; position-- > 0;) again.insert(again.begin(), draw(params, logits, position));
  params.seed = 43;
  for (uint64_t position = 0; position < 40; ++position) other.push_back(draw(params, logits, position));
  EXPECT_EQ(first, again);
  EXPECT_NE(first, other);
}

}  // namespace
}  // namespace accrete
