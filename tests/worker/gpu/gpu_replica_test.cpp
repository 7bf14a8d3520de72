// Replicas on a GPU beside the same on the CPU: dummy weights, which both devices make alike. bf16 activations there, fp32 here; so log
// probabilities lie within a bound of each other, greedy tokens are the same until two candidates are closer than it, and compression that
// does not depend on values is equal to the slot.
#if defined(ACCRETE_CUDA)

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/device/device_memory.h"
#include "tests/worker/gpu/gpu_runs.h"

namespace accrete::worker {
namespace {

class GpuReplica : public testing::Test {
 protected:
  void SetUp() override {
    std::string why;
    if (device_count(&why) == 0) GTEST_SKIP() << why;
  }
};

EngineOptions options_for(const std::string& device) {
  EngineOptions options;
  options.model = "tiny";
  options.load_format = "dummy";
  options.device = device;
  options.max_num_seqs = 12;
  options.max_num_batched_tokens = 96;
  options.max_model_len = 512;
  options.kv_cache_memory_bytes = 64 << 20;
  options.cpu_threads = 2;
  return options;
}

std::vector<Request> requests_of(int count, int64_t max_tokens) {
  std::mt19937 random(11);
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request request;
    request.id = static_cast<RequestId>(i + 1);
    request.prompt.resize(std::uniform_int_distribution<int>(1, 150)(random));
    for (int32_t& token : request.prompt) token = std::uniform_int_distribution<int32_t>(3, 511)(random);
    request.sampling.temperature = 0.0f;
    request.sampling.logprobs = 2;
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    requests.push_back(std::move(request));
  }
  return requests;
}

// Each of 4 L + 2 roundings to bf16 on the way to a logit is off by 2^-9 of its size on average; they add up as a random walk. The logits of
// tiny have a deviation of about 1, and four of its own deviations cover thousands of them.
constexpr double kBound = 4 * 0x1p-9 * 3.2 * 2;

// How often two runs' greedy tokens part ways where the better candidate was clear.
void expect_same_tokens(const Outputs& found, const Outputs& wanted, const std::string& what) {
  ASSERT_EQ(found.size(), wanted.size()) << what;
  size_t alike = 0, all = 0;
  for (const auto& [id, want] : wanted) {
    const RequestOutput& have = found.at(id);
    EXPECT_EQ(have.finish, want.finish) << what << ", request " << id << " " << have.error;
    ASSERT_EQ(have.tokens.size(), want.tokens.size()) << what << ", request " << id;
    all += want.tokens.size();
    for (size_t i = 0; i < want.tokens.size(); ++i, ++alike) {
      if (have.tokens[i].id == want.tokens[i].id) {
        EXPECT_NEAR(have.tokens[i].logprob, want.tokens[i].logprob, kBound) << what << ", request " << id << " token " << i;
        continue;
      }
      ASSERT_EQ(want.tokens[i].top.size(), 2u);
      EXPECT_LT(want.tokens[i].top[0].logprob - want.tokens[i].top[1].logprob, 2 * kBound) << what << ", request " << id << " token " << i;
      break;  // from here on they continue different texts
    }
  }
  EXPECT_GT(alike, all / 4) << what;
}

void expect_same_slots(const Outputs& found, const Outputs& wanted, const std::string& what) {
  for (const auto& [id, want] : wanted) EXPECT_EQ(found.at(id).usage.head_slots, want.usage.head_slots) << what << ", request " << id;
}

TEST_F(GpuReplica, AgreesWithTheCpu) {
  const std::vector<Request> requests = requests_of(16, 40);
  const Outputs wanted = run(options_for("cpu"), requests);
  for (const bool eager : {true, false}) {
    for (const char* ahead : {"off", "on"}) {
      EngineOptions options = options_for("cuda");
      options.enforce_eager = eager;
      options.async_scheduling = ahead;
      expect_same_tokens(run(options, requests), wanted, fmt::format("eager {} lookahead {}", eager, ahead));
    }
  }
}

TEST_F(GpuReplica, CompressesAsTheCpuDoes) {
  const std::vector<Request> requests = requests_of(10, 60);
  for (const int window : {12, 0}) {
    EngineOptions cpu = options_for("cpu"), gpu = options_for("cuda");
    cpu.dmc_synthetic_cr = gpu.dmc_synthetic_cr = 4.0;
    cpu.dmc_window = gpu.dmc_window = window;
    cpu.async_scheduling = "on";  // so that as many tokens are computed
    const Outputs wanted = run(cpu, requests), found = run(gpu, requests);
    expect_same_tokens(found, wanted, fmt::format("window {}", window));
    expect_same_slots(found, wanted, fmt::format("window {}", window));
  }
}

TEST_F(GpuReplica, ScoresPromptsAsTheCpuDoes) {
  std::vector<Request> requests = requests_of(6, 2);
  for (Request& request : requests) request.prompt_logprobs = 3;
  const Outputs wanted = run(options_for("cpu"), requests), found = run(options_for("cuda"), requests);
  for (const auto& [id, want] : wanted) {
    const RequestOutput& have = found.at(id);
    ASSERT_EQ(have.prompt_tokens.size(), want.prompt_tokens.size());
    for (size_t i = 0; i < want.prompt_tokens.size(); ++i) {
      EXPECT_EQ(have.prompt_tokens[i].id, want.prompt_tokens[i].id);
      EXPECT_NEAR(have.prompt_tokens[i].logprob, want.prompt_tokens[i].logprob, kBound) << "request " << id << " token " << i;
      EXPECT_EQ(have.prompt_tokens[i].top.size(), 3u);
    }
  }
}

// Ranks as threads: on one GPU staged through host memory, and where each has its own through NCCL.
TEST_F(GpuReplica, ShardsAndStagesAgreeWithOneRank) {
  const std::vector<Request> requests = requests_of(12, 30);
  const Outputs wanted = run(options_for("cpu"), requests);
  for (const auto& [tensor, pipeline] : {std::pair{2, 1}, std::pair{1, 2}, std::pair{2, 2}}) {
    EngineOptions options = options_for("cuda");
    options.topology = {tensor, pipeline, 1};
    for (const char* group : {"staged", "nccl"}) {
      if (group == std::string("nccl") && device_count() < tensor * pipeline) continue;
      options.device_group = group;
      for (const char* all_reduce : {"group", "one-shot"}) {
        options.all_reduce = all_reduce;
        expect_same_tokens(run(options, requests), wanted, fmt::format("tp {} pp {} {} {}", tensor, pipeline, group, all_reduce));
      }
    }
  }
}

TEST_F(GpuReplica, PreemptsWhenPagesRunOut) {
  const std::vector<Request> requests = requests_of(12, 80);
  const Outputs wanted = run(options_for("cpu"), requests);
  for (const double swap : {0.0, 0.05}) {
    EngineOptions options = options_for("cuda");
    options.swap_space_gib = swap;
    options.kv_cache_memory_bytes = (8 << 20) + (1 << 20);  // 8 MiB are the work space of moving rows
    const Outputs found = run(options, requests);
    int64_t preemptions = 0;
    for (const auto& [id, output] : found) preemptions += output.usage.preemptions;
    EXPECT_GT(preemptions, 0) << "the pool was meant to be too small";
    expect_same_tokens(found, wanted, fmt::format("swap {}", swap));
  }
}

// Seeds, filters and penalties: tokens do not depend on what else is in the batch or on how steps are enqueued.
TEST_F(GpuReplica, SamplesTheSameAlone) {
  std::vector<Request> requests = requests_of(8, 30);
  for (size_t i = 0; i < requests.size(); ++i) {
    SamplingParams& sampling = requests[i].sampling;
    sampling.temperature = 0.9f;
    sampling.seed = i;
    if (i % 2 == 1) sampling.top_p = 0.8f;
    if (i % 3 == 1) sampling.top_k = 20;
    if (i % 4 == 2) sampling.repetition_penalty = 1.2f;
  }
  const Outputs once = run(options_for("cuda"), requests), again = run(options_for("cuda"), requests);
  for (const auto& [id, output] : once) {
    ASSERT_EQ(output.tokens.size(), 30u);
    for (size_t i = 0; i < 30; ++i) EXPECT_EQ(output.tokens[i].id, again.at(id).tokens[i].id) << "request " << id << " token " << i;
  }
  // The CPU's choices, as far as logits that differ by the bound leave them alone.
  const Outputs cpu = run(options_for("cpu"), requests);
  size_t alike = 0;
  for (const auto& [id, output] : once) alike += output.tokens[0].id == cpu.at(id).tokens[0].id ? 1 : 0;
  EXPECT_GE(alike, 6u) << "of 8 first tokens";
}

TEST_F(GpuReplica, Fp8IsClose) {
  std::vector<Request> requests = requests_of(4, 1);
  for (Request& request : requests) request.prompt_logprobs = 0;
  EngineOptions options = options_for("cuda");
  const Outputs wanted = run(options, requests);
  options.quantization = "fp8";
  options.device_group = "staged";
  // Alone; as two shards, whose sums need products scaled, before them or by them; as two stages.
  for (const auto& [tensor, pipeline, all_reduce] : {std::tuple{1, 1, "group"}, std::tuple{2, 1, "group"}, std::tuple{2, 1, "one-shot"}, std::tuple{1, 2, "group"}}) {
    options.topology = {tensor, pipeline, 1};
    options.all_reduce = all_reduce;
    const Outputs found = run(options, requests);
    double squares = 0;
    size_t count = 0;
    for (const auto& [id, want] : wanted) {
      for (size_t i = 0; i < want.prompt_tokens.size(); ++i, ++count) {
        const double difference = found.at(id).prompt_tokens[i].logprob - want.prompt_tokens[i].logprob;
        squares += difference * difference;
      }
    }
    // e4m3 keeps three bits: products of rounded factors are off by about 2^-4 / sqrt(3) each way, independently over K and over 8 products.
    EXPECT_LT(std::sqrt(squares / static_cast<double>(count)), 0.15) << "tp " << tensor << " pp " << pipeline << " " << all_reduce;
    EXPECT_GT(squares, 0.0);
  }
}

TEST_F(GpuReplica, CancelsAndStopsInTheMiddle) {
  std::vector<Request> requests = requests_of(20, 200);
  Collector collector;
  LocalReplica replica(options_for("cuda"), collector.sink());
  for (const Request& request : requests) replica.submit(request);
  for (size_t i = 0; i < requests.size(); i += 2) replica.cancel(requests[i].id);
  replica.wait_idle();
  EXPECT_EQ(replica.status().report.ranks(0).pages_free(), replica.status().shape.ranks(0).pages_total());
  const Outputs outputs = collector.take();
  std::vector<Request> stopping = requests_of(4, 200);
  const RequestOutput& full = outputs.at(2);
  for (Request& request : stopping) {
    for (size_t i = 10; i < 30; ++i) request.stop_token_ids.push_back(full.tokens.at(i).id);  // one of them comes, whatever near ties do
    request.prompt = requests[1].prompt;
    request.id += 1000;
  }
  for (const Request& request : stopping) replica.submit(request);
  replica.wait_idle();
  for (const auto& [id, output] : collector.take()) {
    EXPECT_EQ(output.finish, FinishReason::stop) << id;
    EXPECT_LE(output.tokens.size(), 31u) << id;
  }
}

}  // namespace
}  // namespace accrete::worker

#endif
