#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <map>
#include <mutex>
#include <random>

#include "worker/service/replica.h"

namespace accrete::worker {
namespace {

// Outputs of a run, by request.
class Collector {
 public:
  OutputSink sink() {
    return [this](std::vector<RequestOutput>&& outputs) {
      const std::lock_guard lock(mutex_);
      for (RequestOutput& output : outputs) {
        RequestOutput& whole = whole_[output.id];
        whole.tokens.insert(whole.tokens.end(), output.tokens.begin(), output.tokens.end());
        whole.prompt_tokens.insert(whole.prompt_tokens.end(), output.prompt_tokens.begin(), output.prompt_tokens.end());
        if (output.finish == FinishReason::none) continue;
        EXPECT_EQ(whole.finish, FinishReason::none) << "request " << output.id << " ended twice";
        whole.finish = output.finish;
        whole.error = output.error;
        whole.usage = output.usage;
      }
    };
  }
  std::map<RequestId, RequestOutput> take() {
    const std::lock_guard lock(mutex_);
    return std::exchange(whole_, {});
  }

 private:
  std::mutex mutex_;
  std::map<RequestId, RequestOutput> whole_;
};

EngineOptions tiny_options() {
  EngineOptions options;
  options.model = "tiny";
  options.load_format = "dummy";
  options.dtype = "float32";
  options.max_num_seqs = 8;
  options.max_num_batched_tokens = 64;
  options.max_model_len = 256;
  options.kv_cache_memory_bytes = 16 << 20;
  options.cpu_threads = 1;
  return options;
}

std::vector<Request> prompts(int count, int vocab, int64_t max_tokens) {
  std::mt19937 random(7);
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request request;
    request.id = static_cast<RequestId>(i + 1);
    request.prompt.resize(std::uniform_int_distribution<int>(1, 70)(random));
    for (int32_t& token : request.prompt) token = std::uniform_int_distribution<int32_t>(3, vocab - 1)(random);
    request.sampling.temperature = 0.0f;
    request.max_tokens = max_tokens;
    request.ignore_eos = true;
    requests.push_back(std::move(request));
  }
  return requests;
}

std::map<RequestId, RequestOutput> run(const EngineOptions& options, const std::vector<Request>& requests) {
  Collector collector;
  LocalReplica replica(options, collector.sink());
  for (const Request& request : requests) replica.submit(request);
  replica.wait_idle();
  const rpc::ReplicaReport report = replica.status().report;
  for (int i = 0; i < report.ranks_size(); ++i) {
    EXPECT_EQ(report.ranks(i).pages_free(), replica.status().shape.ranks(i).pages_total()) << "rank " << i << " leaked pages";
  }
  return collector.take();
}

std::vector<int32_t> ids(const RequestOutput& output) {
  std::vector<int32_t> tokens;
  for (const TokenOut& token : output.tokens) tokens.push_back(token.id);
  return tokens;
}

void expect_same(const std::map<RequestId, RequestOutput>& found, const std::map<RequestId, RequestOutput>& wanted, const std::string& what) {
  ASSERT_EQ(found.size(), wanted.size()) << what;
  for (const auto& [id, output] : wanted) {
    EXPECT_EQ(ids(found.at(id)), ids(output)) << what << ", request " << id;
    EXPECT_EQ(found.at(id).finish, output.finish) << what << ", request " << id;
  }
}

struct Grid {
  int tensor;
  int pipeline;
};

TEST(local_replica, greedy_tokens_agree_over_tensor_and_pipeline_parallel) {
  const std::vector<Request> requests = prompts(6, 512, 24);
  const auto wanted = run(tiny_options(), requests);
  for (const auto& [id, output] : wanted) {
    EXPECT_EQ(output.tokens.size(), 24u);
    EXPECT_EQ(output.finish, FinishReason::length);
  }
  for (const Grid grid : {Grid{2, 1}, Grid{1, 2}, Grid{2, 2}}) {
    EngineOptions options = tiny_options();
    options.topology = {grid.tensor, grid.pipeline, 1};
    expect_same(run(options, requests), wanted, "tp " + std::to_string(grid.tensor) + " pp " + std::to_string(grid.pipeline));
  }
}

TEST(local_replica, chunk_budget_does_not_change_tokens) {
  const std::vector<Request> requests = prompts(6, 512, 16);
  const auto wanted = run(tiny_options(), requests);
  for (int64_t budget : {8, 19, 512}) {
    EngineOptions options = tiny_options();
    options.max_num_batched_tokens = budget;
    expect_same(run(options, requests), wanted, "budget " + std::to_string(budget));
  }
}

// tiny: 2 layers of 2 KV heads and pages of 8 KiB, so that 4 pages hold 16 tokens of a sequence: about 340 tokens in all.
EngineOptions crowded_options() {
  EngineOptions options = tiny_options();
  options.kv_cache_memory_bytes = 700 << 10;
  return options;
}

TEST(local_replica, preemption_by_recompute_keeps_the_tokens) {
  const std::vector<Request> requests = prompts(8, 512, 60);
  const auto wanted = run(tiny_options(), requests);
  const auto found = run(crowded_options(), requests);
  expect_same(found, wanted, "recompute");
  int64_t preemptions = 0;
  for (const auto& [id, output] : found) preemptions += output.usage.preemptions;
  EXPECT_GT(preemptions, 0) << "the pool was meant to be too small";
}

TEST(local_replica, preemption_by_swap_keeps_the_tokens) {
  const std::vector<Request> requests = prompts(8, 512, 60);
  for (double synthetic : {0.0, 2.0}) {
    EngineOptions plenty = tiny_options(), crowded = crowded_options();
    plenty.dmc_synthetic_cr = crowded.dmc_synthetic_cr = synthetic;
    crowded.swap_space_gib = 0.01;
    crowded.topology.tensor = plenty.topology.tensor = 2;
    crowded.kv_cache_memory_bytes = (synthetic > 0.0 ? 420 : 350) << 10;  // a rank's, half the heads
    Collector collector;
    std::map<RequestId, RequestOutput> found;
    uint64_t swapped = 0;
    {
      LocalReplica replica(crowded, collector.sink());
      for (const Request& request : requests) replica.submit(request);
      replica.wait_idle();
      swapped = replica.status().report.counters().swapped_in();
      found = collector.take();
    }
    EXPECT_GT(swapped, 0u);
    expect_same(found, run(plenty, requests), "swap");
  }
}

// Steps planned before the tokens of the ones before are read: the same tokens, whether requests end by length or in the middle of it, with
// sampling that remembers, with ranks that share a step, and when the pool is too small.
TEST(local_replica, lookahead_keeps_the_tokens) {
  std::vector<Request> requests = prompts(8, 512, 60);
  const auto plain = run(tiny_options(), requests);
  for (size_t i = 0; i < requests.size(); ++i) {
    Request& request = requests[i];
    if (i % 2 == 0) request.stop_token_ids = {plain.at(request.id).tokens.at(5 * i + 1).id};
    if (i % 3 == 1) request.sampling.repetition_penalty = 1.3f;
    if (i % 3 == 2) request.sampling = {.temperature = 0.8f, .frequency_penalty = 0.2f, .seed = i};
  }
  const auto wanted = run(tiny_options(), requests);
  for (const int tensor : {1, 2}) {
    for (const bool crowded : {false, true}) {
      for (const double swap : {0.0, 0.01}) {
        EngineOptions options = crowded ? crowded_options() : tiny_options();
        options.async_scheduling = "on";
        options.topology.tensor = tensor;
        if (crowded && tensor == 2) options.kv_cache_memory_bytes = 350 << 10;
        options.swap_space_gib = swap;
        options.max_num_batched_tokens = 32;
        expect_same(run(options, requests), wanted, fmt::format("tp {} crowded {} swap {}", tensor, crowded, swap));
      }
    }
  }
}

TEST(local_replica, lookahead_cancels_and_reports) {
  Collector collector;
  EngineOptions options = tiny_options();
  options.async_scheduling = "on";
  options.dmc_synthetic_cr = 4.0;
  std::vector<Request> requests = prompts(12, 512, 180);
  for (size_t i = 0; i < requests.size(); i += 2) requests[i].max_tokens = 40;
  LocalReplica replica(options, collector.sink());
  for (const Request& request : requests) replica.submit(request);
  for (size_t i = 1; i < requests.size(); i += 2) replica.cancel(requests[i].id);
  replica.wait_idle();
  EXPECT_EQ(replica.status().report.ranks(0).pages_free(), replica.status().shape.ranks(0).pages_total());
  for (const auto& [id, output] : collector.take()) {
    const bool whole = id % 2 == 1;
    EXPECT_EQ(output.finish, whole ? FinishReason::length : FinishReason::abort) << id;
    if (!whole) continue;
    EXPECT_EQ(output.tokens.size(), 40u);
    double slots = 0.0;
    for (int32_t count : output.usage.head_slots) slots += count / 4.0;
    EXPECT_DOUBLE_EQ(output.usage.kv_slots, slots);
  }
}

TEST(local_replica, synthetic_compression_is_reported) {
  EngineOptions options = tiny_options();
  options.dmc_synthetic_cr = 4.0;
  options.max_model_len = 1024;
  std::vector<Request> requests = prompts(4, 512, 200);
  for (const auto& [id, output] : run(options, requests)) {
    ASSERT_EQ(output.usage.head_slots.size(), 4u);
    double slots = 0.0;
    for (int32_t count : output.usage.head_slots) slots += count / 4.0;
    EXPECT_DOUBLE_EQ(output.usage.kv_slots, slots);
    EXPECT_GT(output.usage.compression_ratio, 2.5);
    EXPECT_LT(output.usage.compression_ratio, 6.0);
  }
}

TEST(local_replica, prompt_logprobs_agree_over_chunks) {
  std::vector<Request> requests = prompts(3, 512, 1);
  for (Request& request : requests) request.prompt_logprobs = 2;
  const auto wanted = run(tiny_options(), requests);
  EngineOptions options = tiny_options();
  options.max_num_batched_tokens = 8;
  const auto found = run(options, requests);
  for (const Request& request : requests) {
    const auto& a = wanted.at(request.id).prompt_tokens;
    const auto& b = found.at(request.id).prompt_tokens;
    ASSERT_EQ(a.size(), request.prompt.size() - 1);
    ASSERT_EQ(b.size(), a.size());
    for (size_t i = 0; i < a.size(); ++i) {
      EXPECT_EQ(a[i].id, request.prompt[i + 1]);
      EXPECT_NEAR(a[i].logprob, b[i].logprob, 1e-4);
      EXPECT_EQ(a[i].top.size(), 2u);
    }
  }
}

TEST(local_replica, cancel_frees_everything) {
  Collector collector;
  EngineOptions options = tiny_options();
  LocalReplica replica(options, collector.sink());
  std::vector<Request> requests = prompts(12, 512, 180);
  for (const Request& request : requests) replica.submit(request);
  for (const Request& request : requests) replica.cancel(request.id);
  replica.wait_idle();
  EXPECT_EQ(replica.status().report.ranks(0).pages_free(), replica.status().shape.ranks(0).pages_total());
  for (const auto& [id, output] : collector.take()) EXPECT_EQ(output.finish, FinishReason::abort) << id;
}

TEST(local_replica, a_request_that_never_fits_ends_with_its_pages) {
  EngineOptions options = crowded_options();
  options.max_model_len = 2048;
  options.max_num_seqs = 1;
  options.kv_cache_memory_bytes = 400 << 10;
  std::vector<Request> requests = prompts(1, 512, 2000);
  const auto found = run(options, requests);
  EXPECT_EQ(found.at(1).finish, FinishReason::error);
  EXPECT_NE(found.at(1).error.find("cache pages"), std::string::npos) << found.at(1).error;
}

TEST(local_replica, wrong_requests_end_with_an_error) {
  std::vector<Request> requests = prompts(3, 512, 4);
  requests[0].prompt.clear();
  requests[1].prompt[0] = 512;
  requests[2].prompt.resize(300, 5);
  const auto found = run(tiny_options(), requests);
  EXPECT_NE(found.at(1).error.find("empty"), std::string::npos);
  EXPECT_NE(found.at(2).error.find("vocabulary"), std::string::npos);
  EXPECT_NE(found.at(3).error.find("max_model_len"), std::string::npos);
}

TEST(local_replica, too_many_shards_name_the_flag) {
  EngineOptions options = tiny_options();
  options.topology.tensor = 3;
  Collector collector;
  try {
    LocalReplica replica(options, collector.sink());
    FAIL() << "3 shards of 2 KV heads";
  } catch (const std::exception& error) {
    EXPECT_NE(std::string(error.what()).find("--tensor-parallel-size"), std::string::npos) << error.what();
  }
}

}  // namespace
}  // namespace accrete::worker
