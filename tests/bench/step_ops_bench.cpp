// What surrounds the products of a decode step: fork/join, norm, activation, sampling.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/mlp/silu_mul.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/sampling/sampling.h"
#include "kernels/thread_pool.h"

namespace accrete {
namespace {

void fork_join(benchmark::State& state) {
  ThreadPool pool(static_cast<int>(state.range(0)));
  for (auto _ : state) pool.run(pool.threads(), [](int64_t) {});
}
BENCHMARK(fork_join)->ArgName("threads")->Arg(1)->Arg(2)->UseRealTime();

std::vector<float> normal_values(int64_t count, float spread) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

void rms_norm(benchmark::State& state) {
  const int64_t tokens = state.range(0), width = 576;
  ThreadPool pool(1);
  Stream stream{&pool};
  auto x = normal_values(tokens * width, 1), delta = normal_values(tokens * width, 1e-3f), weight = normal_values(width, 1), y = x;
  RmsNorm op;
  op.x = View<float, 2>(x.data(), {tokens, width});
  op.delta = View<float, 2>(delta.data(), {tokens, width});
  op.weight = View<float, 1>(weight.data(), {width});
  op.y = View<float, 2>(y.data(), {tokens, width});
  for (auto _ : state) rms_norm_cpu(op, stream);
}
BENCHMARK(rms_norm)->ArgName("tokens")->Arg(1)->Arg(8);

void silu_mul(benchmark::State& state) {
  const int64_t tokens = state.range(0), width = 1536;
  ThreadPool pool(1);
  Stream stream{&pool};
  auto gate_up = normal_values(tokens * 2 * width, 1), y = normal_values(tokens * width, 1);
  for (auto _ : state) {
    silu_mul_cpu({View<float, 2>(gate_up.data(), {tokens, 2 * width}), View<float, 2>(y.data(), {tokens, width})}, stream);
  }
}
BENCHMARK(silu_mul)->ArgName("tokens")->Arg(1)->Arg(8);

SamplingParams sampling(float temperature, int32_t top_k, float top_p, int32_t logprobs) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  params.logprobs = logprobs;
  return params;
}
void sample(benchmark::State& state, const SamplingParams& params) {
  const auto logits = normal_values(state.range(0), 2);
  auto row = logits;
  SampleRequest request;
  request.params = &params;
  for (auto _ : state) {
    ++request.position;
    benchmark::DoNotOptimize(sample_cpu(request, row));  // without edits the row stays as it is
  }
}
BENCHMARK_CAPTURE(sample, greedy, sampling(0, 0, 1, -1))->Arg(49152)->Arg(128256);
BENCHMARK_CAPTURE(sample, temperature, sampling(1, 0, 1, -1))->Arg(49152)->Arg(128256);
BENCHMARK_CAPTURE(sample, top_k_50, sampling(1, 50, 1, -1))->Arg(49152)->Arg(128256);
BENCHMARK_CAPTURE(sample, top_p_90, sampling(1, 0, 0.9f, -1))->Arg(49152)->Arg(128256);
BENCHMARK_CAPTURE(sample, greedy_5_logprobs, sampling(0, 0, 1, 5))->Arg(49152)->Arg(128256);

}  // namespace
}  // namespace accrete
