// Sampling on the device against sample_cpu: tokens, statistics, logprobs.
#if defined(ACCRETE_CUDA)
#include <gtest/gtest.h>

#include <random>

#include "kernels/cuda.h"
#include "tests/kernels/sampling/device_rows.h"
#include "tests/kernels/sampling/reference_sampling.h"

namespace accrete {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

class SampleOnDevice : public testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (device_count(&why) == 0) GTEST_SKIP() << why;
  }
};
using ScoreOnDevice = SampleOnDevice;

SamplingCase greedy_case(std::vector<float> logits) {
  SamplingCase row;
  row.logits = std::move(logits);
  row.params.temperature = 0;
  return row;
}

// Both round the same logarithm to float; sample_cpu's sum is a float sum of 32 terms a lane (31 roundings) of weights within 4e-7.
void expect_logprob(float device, float cpu, size_t vocabulary) {
  if (device == cpu) return;  // both -inf, too
  const double error = 32 * 0x1p-24 + 4e-7 + static_cast<double>(vocabulary) * 0x1p-44 + std::abs(cpu) * 0x1p-23;
  EXPECT_NEAR(device, cpu, error);
}

void expect_scores(const Sampled& device, const Sampled& cpu, size_t vocabulary) {
  EXPECT_EQ(device.rank, cpu.rank);
  expect_logprob(device.logprob, cpu.logprob, vocabulary);
  ASSERT_EQ(device.top.size(), cpu.top.size());
  for (size_t i = 0; i < cpu.top.size(); ++i) {
    EXPECT_EQ(device.top[i].token, cpu.top[i].token) << "top " << i;
    expect_logprob(device.top[i].logprob, cpu.top[i].logprob, vocabulary);
  }
}

// A token other than sample_cpu's is right where the rounding of sample_cpu's sums explains it, and the exact draw gives it.
// Returns whether they differ.
bool expect_row(const SamplingCase& row, const Sampled& device) {
  const Sampled cpu = sample_on_cpu(row);
  const size_t vocabulary = row.logits.size();
  if (cpu.token < 0 || row.params.temperature < 1e-5f) {
    EXPECT_EQ(device.token, cpu.token);
  } else {
    const ExactDraw exact(row);
    EXPECT_TRUE(exact.allows(device.token, device_error(vocabulary))) << device.token << ", sample_cpu " << cpu.token;
    if (device.token != cpu.token) {
      EXPECT_TRUE(exact.allows(cpu.token, cpu_error())) << cpu.token << ", device " << device.token;
      return true;
    }
  }
  if (device.token == cpu.token) expect_scores(device, cpu, vocabulary);
  return false;
}

int expect_rows(const std::vector<SamplingCase>& cases) {
  DeviceRows device(static_cast<int64_t>(cases.size()) + 3, static_cast<int64_t>(cases[0].logits.size()));
  const auto sampled = device.sample(cases);
  const auto next = device.get<int32_t>(device.next_ids, cases.size());
  int differing = 0;
  for (size_t i = 0; i < cases.size(); ++i) {
    const SamplingParams& p = cases[i].params;
    SCOPED_TRACE(testing::Message() << "row " << i << " V " << cases[i].logits.size() << " T " << p.temperature << " k " << p.top_k
                                    << " p " << p.top_p << " min " << p.min_p << " logprobs " << p.logprobs << " penalties "
                                    << p.repetition_penalty << " " << p.frequency_penalty << " " << p.presence_penalty);
    differing += expect_row(cases[i], sampled[i]);
    EXPECT_EQ(next[i], sampled[i].token);
  }
  return differing;
}

// Parameters as requests have them, each switched on now and then.
class RandomCases {
 public:
  explicit RandomCases(unsigned seed) : random_(seed) {}

  SamplingCase operator()(int64_t vocabulary) {
    SamplingCase row;
    row.logits = random_logits(vocabulary, static_cast<unsigned>(random_()), between(0.2f, 6));
    if (maybe(5)) coarsen(row.logits);
    if (maybe(6)) forbid_most(row.logits);
    row.params.temperature = maybe(5) ? 0 : maybe(8) ? 1e-6f : between(0.05f, 3);
    if (maybe(3)) row.params.top_k = static_cast<int32_t>(1 + random_() % (2 * vocabulary));
    if (maybe(2)) row.params.top_p = maybe(6) ? 0.0f : between(0.01f, 0.9999f);
    if (maybe(3)) row.params.min_p = maybe(6) ? 1.0f : between(0, 0.3f);
    if (maybe(3)) penalise(row, vocabulary);
    if (maybe(4)) edit(row, vocabulary);
    if (maybe(3)) row.params.logprobs = static_cast<int32_t>(random_() % 21);
    row.params.seed = uint64_t{random_()} << 32 | random_();
    row.position = static_cast<int32_t>(random_() % 100000);
    row.forbidden_until = row.position + (maybe(2) ? 1 : 0);
    return row;
  }

 private:
  bool maybe(unsigned in) { return random_() % in == 0; }
  float between(float low, float high) { return std::uniform_real_distribution<float>(low, high)(random_); }
  int32_t token(int64_t vocabulary) { return static_cast<int32_t>(random_() % (vocabulary + 2)) - 1; }  // now and then outside
  // Many ties, and both zeros.
  void coarsen(std::vector<float>& logits) {
    for (float& logit : logits) logit = std::round(logit);
  }
  void forbid_most(std::vector<float>& logits) {
    for (float& logit : logits) logit = random_() % 4 ? -kInfinity : logit;
  }
  void penalise(SamplingCase& row, int64_t vocabulary) {
    if (maybe(2)) row.params.repetition_penalty = between(0.5f, 2);
    if (maybe(2)) row.params.frequency_penalty = between(-1, 2);
    if (maybe(2)) row.params.presence_penalty = between(-1, 2);
    for (int i = 0; i < 40; ++i) row.prompt.push_back(token(vocabulary));
    for (int i = 0; i < 60; ++i) row.generated.push_back(token(std::min<int64_t>(vocabulary, 25)));
  }
  void edit(SamplingCase& row, int64_t vocabulary) {
    for (int i = 0; i < 20; ++i) row.params.logit_bias.emplace_back(token(vocabulary), between(-8, 8));
    for (int i = 0; i < 5; ++i) row.forbidden.push_back(token(vocabulary));
  }

  std::mt19937 random_;
};

TEST_F(SampleOnDevice, EqualsTheCpuForThousandsOfRandomRows) {
  RandomCases make(1);
  int rows = 0, differing = 0;
  for (int64_t vocabulary : {1, 2, 3, 17, 64, 300, 1001, 2000, 2048}) {
    for (int round = 0; round < 3; ++round) {
      std::vector<SamplingCase> cases;
      for (int i = 0; i < 100; ++i) cases.push_back(make(vocabulary));
      differing += expect_rows(cases);
      rows += 100;
    }
  }
  // A row of 2048 tokens has at most that many edges, each with a band of 2 cpu_error() around it: 3.4 % of the uniforms.
  EXPECT_LE(differing, rows * 4 / 100);
}

// Clusters of two, four and eight blocks; rows whose slices end in the middle of a vector, and one with an empty last slice.
TEST_F(SampleOnDevice, EqualsTheCpuForLargeVocabularies) {
  RandomCases make(2);
  for (int64_t vocabulary : {4099, 8196, 16385, 32000, 50257, 128256, 151936, 262144}) {
    for (int n : {1, 5, 70}) {
      if (n == 70 && vocabulary != 32000 && vocabulary != 8196) continue;
      std::vector<SamplingCase> cases;
      for (int i = 0; i < n; ++i) cases.push_back(make(vocabulary));
      expect_rows(cases);
    }
  }
}

TEST_F(SampleOnDevice, GreedyTakesTheSmallestIdOfTheLargest) {
  for (int64_t vocabulary : {1, 3, 4, 257, 4100, 32000}) {
    std::vector<SamplingCase> cases;
    for (unsigned i = 0; i < 40; ++i) {
      cases.push_back(greedy_case(random_logits(vocabulary, i)));
      if (i % 3 == 1) {
        for (float& logit : cases.back().logits) logit = std::round(logit);
      }
      if (i % 7 == 2) cases.back().logits.assign(vocabulary, i % 2 ? 0.0f : -0.0f);
      if (i % 5 == 3) cases.back().params.logprobs = static_cast<int32_t>(i % 21);
    }
    cases.back().logits.assign(vocabulary, -0.0f);
    cases.back().logits.back() = 0.0f;  // the zeros are equal: id 0
    EXPECT_EQ(expect_rows(cases), 0);
  }
}

// Rows with one NaN or infinity, rows of nothing but -inf, and rows with one possible token.
std::vector<SamplingCase> borderline_cases(int64_t vocabulary, float temperature) {
  std::vector<SamplingCase> cases;
  for (int64_t at : {int64_t{0}, vocabulary / 2, vocabulary - 1}) {
    for (float odd : {std::nanf(""), kInfinity, -kInfinity}) {
      cases.push_back(greedy_case(random_logits(vocabulary, 3)));
      cases.back().logits[at] = odd;
    }
    cases.push_back(greedy_case(std::vector<float>(vocabulary, -kInfinity)));
    cases.push_back(cases.back());
    cases.back().logits[at] = -3e38f;
  }
  for (SamplingCase& row : cases) {
    row.params.temperature = temperature;
    row.params.logprobs = 3;
  }
  return cases;
}

TEST_F(SampleOnDevice, UnusableAndHardlyUsableLogits) {
  for (int64_t vocabulary : {1, 5, 2000, 32000}) {
    for (float temperature : {0.0f, 1e-6f, 1.0f}) EXPECT_EQ(expect_rows(borderline_cases(vocabulary, temperature)), 0);
  }
}

TEST_F(SampleOnDevice, ForbiddingEveryTokenLeavesNone) {
  SamplingCase row = greedy_case({1, 2, 3});
  row.forbidden = {2, 0, 1};
  SamplingCase warm = row;
  warm.params.temperature = 1;
  SamplingCase infinite = row;
  infinite.forbidden = {};
  infinite.params.logit_bias = {{1, 3e38f}, {1, 3e38f}};  // overflows to +inf
  DeviceRows device(3, 3);
  for (const Sampled& sampled : device.sample({row, warm, infinite})) EXPECT_EQ(sampled.token, -1);
  EXPECT_EQ(sample_on_cpu(infinite).token, -1);
}

// The ids that min_tokens forbids come back at their position; one token's edits are added in order, one by one.
TEST_F(SampleOnDevice, EditsEndAtTheirPosition) {
  SamplingCase row = greedy_case({1, 9, 2, 5});
  row.forbidden = {1, 1};
  row.forbidden_until = 12;
  row.params.logit_bias = {{2, 1e8f}, {2, -1e8f}, {2, 3.5f}};
  DeviceRows device(1, 4);
  device.tables.start(0, row.start(), device.stream.stream());
  for (row.position = 9; row.position < 15; ++row.position) {
    device.put_step({row}, {0});
    sample_cuda(device.op(1), device.stream.stream());
    const int32_t token = device.read(1)[0].token;
    EXPECT_EQ(token, row.position < 12 ? 3 : 1);
    EXPECT_EQ(token, sample_on_cpu(row).token);
  }
}

// Thirty steps without the host: the counts that penalties see are the device's own.
TEST_F(SampleOnDevice, CountsWhatItSamples) {
  constexpr int kRows = 9, kSteps = 30;
  constexpr int64_t kVocabulary = 40;
  RandomCases make(5);
  DeviceRows device(kRows, kVocabulary);
  std::vector<SamplingCase> cases;
  std::vector<int32_t> used;
  for (int i = 0; i < kRows; ++i) {
    cases.push_back(make(kVocabulary));
    cases[i].params.frequency_penalty = 0.3f * static_cast<float>(i % 3);
    cases[i].params.presence_penalty = 0.4f * static_cast<float>(i % 2);
    cases[i].params.repetition_penalty = i < 3 ? 1.0f : 1.2f;
    cases[i].generated.resize(i);
    used.push_back((i * 4) % kRows);
    device.tables.start(used[i], cases[i].start(), device.stream.stream());
  }
  for (int step = 0; step < kSteps; ++step) {
    device.put_step(cases, used);
    sample_cuda(device.op(kRows), device.stream.stream());
    const auto sampled = device.read(kRows);
    for (int i = 0; i < kRows; ++i) {
      SCOPED_TRACE(testing::Message() << "step " << step << " row " << i);
      expect_row(cases[i], sampled[i]);
      cases[i].generated.push_back(sampled[i].token);
      ++cases[i].position;
    }
  }
}

TEST_F(SampleOnDevice, LeavesPaddingAlone) {
  DeviceRows device(4, 100);
  const SamplingCase row = greedy_case(random_logits(100, 8));
  device.tables.start(2, row.start(), device.stream.stream());
  device.put_step({row, row, row}, {-1, 2, -1});
  for (const DeviceMemory* memory : {&device.token, &device.next_ids, &device.rank}) device.put<int32_t>(*memory, {77, 77, 77, 77});
  sample_cuda(device.op(3), device.stream.stream());
  const int32_t token = sample_on_cpu(row).token;
  EXPECT_EQ(device.get<int32_t>(device.token, 4), (std::vector<int32_t>{77, token, 77, 77}));
  EXPECT_EQ(device.get<int32_t>(device.next_ids, 4), (std::vector<int32_t>{77, token, 77, 77}));
  EXPECT_EQ(device.get<int32_t>(device.rank, 4), (std::vector<int32_t>{77, 0, 77, 77}));
}

// Alone a row is shared by more blocks than among many; its results have the same bits.
TEST_F(SampleOnDevice, ARowDoesNotDependOnItsBatch) {
  constexpr int64_t kVocabulary = 16384;
  RandomCases make(6);
  std::vector<SamplingCase> cases;
  for (int i = 0; i < 150; ++i) cases.push_back(make(kVocabulary));
  for (SamplingCase& row : cases) row.params.logprobs = 4;
  DeviceRows device(150, kVocabulary);
  const auto together = device.sample(cases);
  for (size_t i = 0; i < cases.size(); i += 10) {
    const Sampled alone = device.sample({cases[i]})[0];
    EXPECT_EQ(alone.token, together[i].token);
    EXPECT_EQ(alone.logprob, together[i].logprob);
    EXPECT_EQ(alone.rank, together[i].rank);
    ASSERT_EQ(alone.top.size(), together[i].top.size());
    for (size_t j = 0; j < alone.top.size(); ++j) EXPECT_EQ(alone.top[j].logprob, together[i].top[j].logprob);
  }
}

TEST_F(SampleOnDevice, SaysWhatDoesNotFit) {
  const DeviceSamplerTables tables({2, 100, 3});
  SamplingCase row = greedy_case({});
  row.params.logit_bias = {{1, 1.0f}, {2, 1.0f}};
  row.forbidden = {5};
  row.params.logprobs = kMostTopLogprobs;
  EXPECT_TRUE(tables.fits(row.start()));
  row.params.logprobs = kMostTopLogprobs + 1;
  EXPECT_FALSE(tables.fits(row.start()));
  row.params.logprobs = 0;
  row.forbidden = {5, 6};
  EXPECT_FALSE(tables.fits(row.start()));
}

// Captured once, replayed for other logits, positions and requests.
TEST_F(SampleOnDevice, RunsInAGraph) {
  constexpr int64_t kRows = 6, kVocabulary = 5000;
  RandomCases make(7);
  DeviceRows device(kRows, kVocabulary);
  const auto cuda = static_cast<cudaStream_t>(device.stream.stream().cuda);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  ACCRETE_CUDA_CHECK(cudaStreamBeginCapture(cuda, cudaStreamCaptureModeThreadLocal));
  sample_cuda(device.op(kRows), device.stream.stream());
  ACCRETE_CUDA_CHECK(cudaStreamEndCapture(cuda, &graph));
  ACCRETE_CUDA_CHECK(cudaGraphInstantiate(&replay, graph, 0));
  for (int round = 0; round < 3; ++round) {
    std::vector<SamplingCase> cases;
    std::vector<int32_t> used;
    for (int32_t i = 0; i < kRows; ++i) {
      cases.push_back(make(kVocabulary));
      used.push_back((i + round) % kRows);
      device.tables.start(used[i], cases[i].start(), device.stream.stream());
    }
    device.put_step(cases, used);
    ACCRETE_CUDA_CHECK(cudaGraphLaunch(replay, cuda));
    const auto sampled = device.read(kRows);
    for (int64_t i = 0; i < kRows; ++i) expect_row(cases[i], sampled[i]);
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
}

struct ScoreCase {
  std::vector<float> logits;
  int32_t token, top;
};

void expect_scored(const std::vector<ScoreCase>& cases) {
  const int64_t m = static_cast<int64_t>(cases.size()), vocabulary = static_cast<int64_t>(cases[0].logits.size());
  DeviceRows device(m, vocabulary);
  std::vector<int32_t> tokens, tops;
  for (int64_t i = 0; i < m; ++i) {
    device.put(device.logits, cases[i].logits, i * vocabulary);
    tokens.push_back(cases[i].token);
    tops.push_back(cases[i].top);
  }
  device.put(device.token, tokens);
  device.put(device.position, tops);
  const View<const float, 2> logits(device.logits.as<float>(), {m, vocabulary});
  score_cuda({logits, device.token.as<int32_t>(), device.position.as<int32_t>(), device.token.as<int32_t>(),
              device.logprob.as<float>(), device.rank.as<int32_t>(), device.top_tokens.as<int32_t>(), device.top_logprobs.as<float>()},
             device.stream.stream());
  const auto scored = device.read(m);
  for (int64_t i = 0; i < m; ++i) {
    SCOPED_TRACE(testing::Message() << "row " << i << " V " << vocabulary << " top " << cases[i].top);
    if (cases[i].token < 0) continue;
    const Sampled cpu = score_cpu(cases[i].logits, cases[i].token, cases[i].top);
    EXPECT_EQ(scored[i].token, cpu.token);
    expect_scores(scored[i], cpu, vocabulary);
  }
}

TEST_F(ScoreOnDevice, EqualsTheCpu) {
  std::mt19937 random(9);
  for (int64_t vocabulary : {1, 2, 19, 20, 1000, 4099, 32000, 128256}) {
    std::vector<ScoreCase> cases;
    for (unsigned i = 0; i < 24; ++i) {
      cases.push_back({random_logits(vocabulary, i), static_cast<int32_t>(random() % vocabulary), static_cast<int32_t>(i % 21)});
      if (i % 4 == 1) {
        for (float& logit : cases.back().logits) logit = std::round(logit);
      }
      if (i % 6 == 2) cases.back().logits[random() % vocabulary] = -kInfinity;
      if (i % 8 == 3) cases.back().logits.assign(vocabulary, i % 16 == 3 ? 1.0f : -kInfinity);
      if (i % 12 == 5) cases.back().logits[random() % vocabulary] = i == 5 ? kInfinity : std::nanf("");
      if (i == 7) cases.back().token = -1;
    }
    expect_scored(cases);
  }
}

}  // namespace
}  // namespace accrete
#endif
