// linear_cpu on the shapes of SmolLM2-135M, every weight of the model in its own memory, so that caches see what they see in
// a decode step. Arguments: rows (tokens of the step), threads.
#include <benchmark/benchmark.h>

#include <random>
#include <vector>

#include "kernels/gemm/linear_paths.h"
#include "kernels/thread_pool.h"

namespace accrete {
namespace {

struct Shape {
  int64_t outputs, depth;
};
constexpr Shape kLayer[] = {{960, 576}, {576, 576}, {3072, 576}, {576, 1536}};  // qkv, o, gate and up, down
constexpr Shape kHead = {49152, 576};
constexpr int kLayers = 30;

struct Product {
  std::vector<bf16> weight;
  Shape shape;
};

const std::vector<Product>& products() {
  static const std::vector<Product> all = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal(0, 0.05f);
    std::vector<bf16> pattern(1 << 16);
    for (bf16& value : pattern) value = bf16(normal(random));
    std::vector<Product> made;
    const auto add = [&](Shape shape) {
      Product product{std::vector<bf16>(shape.outputs * shape.depth), shape};
      for (size_t i = 0; i < product.weight.size(); ++i) product.weight[i] = pattern[i % pattern.size()];
      made.push_back(std::move(product));
    };
    for (int layer = 0; layer < kLayers; ++layer) {
      for (Shape shape : kLayer) add(shape);
    }
    add(kHead);
    return made;
  }();
  return all;
}

// All products of one step; the head for at most 8 rows, as a step samples few of its tokens.
void linear_step(benchmark::State& state, CpuIsa isa) {
  if (isa > cpu_matrix_isa()) return state.SkipWithError("this processor lacks the level");
  const int64_t rows = state.range(0);
  ThreadPool pool(static_cast<int>(state.range(1)));
  std::vector<float> x(rows * 1536, 0.5f), y(rows * 49152);
  double bytes = 0, flops = 0;
  for (auto _ : state) {
    bytes = flops = 0;
    for (const Product& product : products()) {
      const auto [outputs, depth] = product.shape;
      const int64_t tokens = outputs == kHead.outputs ? std::min<int64_t>(rows, 8) : rows;
      linear_dot({View<float, 2>(x.data(), {tokens, depth}), View<const bf16, 2>(product.weight.data(), {outputs, depth}),
                  View<float, 2>(y.data(), {tokens, outputs})},
                 pool, isa);
      bytes += 2.0 * outputs * depth;
      flops += 2.0 * tokens * outputs * depth;
    }
  }
  using benchmark::Counter;
  const auto rate = Counter::kIsIterationInvariantRate;
  state.counters["GB/s"] = Counter(bytes * 1e-9, rate);
  state.counters["GFLOP/s"] = Counter(flops * 1e-9, rate);
}
void step_sizes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"rows", "threads"})->ArgsProduct({{1, 2, 4, 8, 16, 64, 512}, {1, 2}});
  bench->Unit(benchmark::kMillisecond)->UseRealTime();
}
BENCHMARK_CAPTURE(linear_step, avx2, CpuIsa::avx2)->Apply(step_sizes);
BENCHMARK_CAPTURE(linear_step, avx512, CpuIsa::avx512)->Apply(step_sizes);
BENCHMARK_CAPTURE(linear_step, amx, CpuIsa::amx)->Apply(step_sizes);

// Own loops of each level against OpenBLAS, on one layer's gate and up (product 2) and down (3): where linear_cpu changes over.
// Arguments: product, rows.
template <class Path>
void linear_path(benchmark::State& state, Path path) {
  const Product& product = products()[state.range(0)];
  const auto [outputs, depth] = product.shape;
  const int64_t rows = state.range(1);
  ThreadPool pool(1);
  std::vector<float> x(rows * depth, 0.5f), y(rows * outputs);
  const Linear op{View<float, 2>(x.data(), {rows, depth}),
                  View<const bf16, 2>(product.weight.data(), {outputs, depth}),
                  View<float, 2>(y.data(), {rows, outputs})};
  for (auto _ : state) path(op, pool);
  state.counters["GFLOP/s"] =
      benchmark::Counter(2e-9 * rows * outputs * depth, benchmark::Counter::kIsIterationInvariantRate);
}
void dot_portable(const Linear& op, ThreadPool& pool) { linear_dot(op, pool, CpuIsa::portable); }
void dot_avx2(const Linear& op, ThreadPool& pool) { linear_dot(op, pool, CpuIsa::avx2); }
void dot_avx512(const Linear& op, ThreadPool& pool) { linear_dot(op, pool, CpuIsa::avx512); }
void dot_best(const Linear& op, ThreadPool& pool) { linear_dot(op, pool, cpu_matrix_isa()); }

void shapes(benchmark::internal::Benchmark* bench) {
  bench->ArgNames({"product", "rows"})->ArgsProduct({{2, 3}, {1, 8, 64, 512, 2048}});
}
BENCHMARK_CAPTURE(linear_path, portable, dot_portable)->Apply(shapes);
BENCHMARK_CAPTURE(linear_path, avx2, dot_avx2)->Apply(shapes);
BENCHMARK_CAPTURE(linear_path, avx512, dot_avx512)->Apply(shapes);
BENCHMARK_CAPTURE(linear_path, best, dot_best)->Apply(shapes);
BENCHMARK_CAPTURE(linear_path, blas, linear_blas)->Apply(shapes);

}  // namespace
}  // namespace accrete
