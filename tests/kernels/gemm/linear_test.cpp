#include "kernels/gemm/linear.h"

#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <string>

#include "kernels/gemm/linear_paths.h"
#include "tests/kernels/random_matrix.h"

namespace accrete {
namespace {

struct Path {
  std::string name;
  std::function<void(const Linear&, ThreadPool&)> run;
  double roundings_per_depth;  // of the longest chain of sums: 1 / lanes, twice that without fused multiply-add
};

std::vector<Path> paths() {
  const auto dot = [](CpuIsa isa) {
    return [isa](const Linear& op, ThreadPool& pool) { linear_dot(op, pool, isa); };
  };
  std::vector<Path> all{{"portable", dot(CpuIsa::portable), 2.0 / 4}, {"blas", linear_blas, 1.0}};
  if (cpu_isa() != CpuIsa::portable) all.push_back({"avx2", dot(CpuIsa::avx2), 1.0 / 8});
  if (cpu_isa() == CpuIsa::avx512) all.push_back({"avx512", dot(CpuIsa::avx512), 1.0 / 16});
  if (cpu_matrix_isa() == CpuIsa::amx) all.push_back({"amx", dot(CpuIsa::amx), 3.0 / 32});
  all.push_back({"linear_cpu",
                 [](const Linear& op, ThreadPool& pool) {
                   Stream stream{&pool};
                   linear_cpu(op, stream);
                 },
                 1.0});
  return all;
}

// |y - x W^T| <= gamma(roundings) |x| |W|^T, element by element (Higham, 3.5).
template <class X, class W>
void expect_product(RandomMatrix<X>& x, RandomMatrix<W>& w, RandomMatrix<float>& y, const Path& path) {
  const auto [tokens, depth] = x.view().shape;
  const double roundings = path.roundings_per_depth * depth + 8;  // 8: the last chunk and the tree over the lanes
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t n = 0; n < w.view().shape[0]; ++n) {
      double sum = 0, magnitude = 0;
      for (int64_t k = 0; k < depth; ++k) {
        sum += x.at(t, k) * w.at(n, k);
        magnitude += std::abs(x.at(t, k) * w.at(n, k));
      }
      ASSERT_NEAR(y.at(t, n), sum, gamma(roundings) * magnitude) << path.name << " row " << t << " column " << n;
    }
  }
}

template <class X, class W>
void try_shape(const Path& path, int64_t tokens, int64_t depth, int64_t outputs) {
  SCOPED_TRACE(fmt::format("{}: T {} K {} N {}", path.name, tokens, depth, outputs));
  RandomMatrix<X> x(tokens, depth, 1);
  RandomMatrix<W> w(outputs, depth, 2);
  RandomMatrix<float> y(tokens, outputs, 3);
  ThreadPool pool(2);
  path.run({View<const X, 2>(x.view()), View<const W, 2>(w.view()), y.view()}, pool);
  expect_product(x, w, y, path);
  EXPECT_TRUE(y.gaps_untouched());
}

struct Sizes {
  int64_t tokens, depth, outputs;
};
// Every number of rows of a block and past it, depths around the chunk sizes 8, 16 and 32, single and odd columns.
constexpr Sizes kSizes[] = {{1, 64, 48}, {2, 64, 7},  {3, 33, 25}, {4, 31, 19},  {5, 100, 11}, {6, 15, 13}, {7, 17, 9},
                            {8, 96, 50}, {9, 40, 33}, {16, 1, 3},  {17, 7, 1},   {50, 72, 21}, {1, 1, 1},   {1, 577, 3},
                            {8, 63, 1},  {2, 8, 100}, {64, 65, 17}};

TEST(Linear, EqualsTheProductWithinTheBoundForFloatWeights) {
  for (const Path& path : paths()) {
    for (const Sizes& s : kSizes) try_shape<float, float>(path, s.tokens, s.depth, s.outputs);
  }
}

TEST(Linear, EqualsTheProductWithinTheBoundForBf16Weights) {
  for (const Path& path : paths()) {
    for (const Sizes& s : kSizes) try_shape<float, bf16>(path, s.tokens, s.depth, s.outputs);
  }
}

TEST(Linear, TakesBf16Activations) {
  for (const Path& path : paths()) {
    try_shape<bf16, bf16>(path, 9, 70, 10);
    try_shape<bf16, float>(path, 9, 70, 10);
  }
}

// Every one of an activation's 24 significand bits counts, at any magnitude that leaves them above the smallest
// normal float (AMX flushes what lies below): times the identity it comes back as it was.
TEST(Linear, KeepsAllBitsOfTheActivations) {
  constexpr int64_t kTokens = 20, kWidth = 50;
  for (float scale : {1.0f, 1e-20f, 1e37f}) {
    RandomMatrix<float> x(kTokens, kWidth, 1, scale), y(kTokens, kWidth, 3);
    RandomMatrix<bf16> w(kWidth, kWidth, 2);
    for (int64_t i = 0; i < kWidth; ++i) {
      for (int64_t j = 0; j < kWidth; ++j) w.view()(i, j) = bf16(i == j ? 1.0f : 0.0f);
    }
    for (const Path& path : paths()) {
      ThreadPool pool(1);
      path.run({x.view(), w.view(), y.view()}, pool);
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t k = 0; k < kWidth; ++k) ASSERT_EQ(y.at(t, k), x.at(t, k)) << path.name << " scale " << scale;
      }
    }
  }
}

TEST(Linear, DoesNothingForNoTokens) {
  ThreadPool pool(2);
  Stream stream{&pool};
  RandomMatrix<float> x(0, 16, 1), w(4, 16, 2), y(0, 4, 3);
  linear_cpu({x.view(), w.view(), y.view()}, stream);
}

TEST(Linear, PropagatesNaNAndInfinity) {
  for (const Path& path : paths()) {
    RandomMatrix<float> x(3, 40, 1), w(5, 40, 2), y(3, 5, 3);
    x.view()(1, 39) = std::numeric_limits<float>::quiet_NaN();
    w.view()(2, 0) = std::numeric_limits<float>::infinity();
    ThreadPool pool(1);
    path.run({x.view(), w.view(), y.view()}, pool);
    for (int64_t n = 0; n < 5; ++n) EXPECT_TRUE(std::isnan(y.at(1, n))) << path.name;
    for (int64_t t = 0; t < 3; ++t) EXPECT_FALSE(std::isfinite(y.at(t, 2))) << path.name;
    EXPECT_TRUE(std::isfinite(y.at(0, 1))) << path.name;
  }
}

// The own loops: a row's bits do not depend on the rows beside it, the number of threads, or where its columns were cut.
template <class W>
void expect_rows_independent(CpuIsa isa) {
  constexpr int64_t kTokens = 21, kDepth = 150, kOutputs = 700;
  RandomMatrix<float> x(kTokens, kDepth, 1);
  RandomMatrix<W> w(kOutputs, kDepth, 2);
  RandomMatrix<float> whole(kTokens, kOutputs, 3), part(kTokens, kOutputs, 4);
  ThreadPool one(1), three(3);
  linear_dot({x.view(), w.view(), whole.view()}, three, isa);
  for (int64_t rows = 1; rows <= 9; ++rows) {
    for (int64_t t = 0; t + rows <= kTokens; t += rows) {
      linear_dot({x.view().rows(t, t + rows), w.view(), part.view().rows(t, t + rows)}, one, isa);
      for (int64_t i = t; i < t + rows; ++i) {
        ASSERT_EQ(std::memcmp(&whole.view()(i, 0), &part.view()(i, 0), kOutputs * sizeof(float)), 0)
            << name_of(isa) << " rows " << rows << " row " << i;
      }
    }
  }
}

TEST(Linear, ARowDoesNotDependOnTheRowsBesideIt) {
  for (CpuIsa isa : {CpuIsa::portable, CpuIsa::avx2, CpuIsa::avx512, CpuIsa::amx}) {
    if (isa > cpu_matrix_isa()) continue;
    expect_rows_independent<bf16>(isa);
    expect_rows_independent<float>(isa);
  }
}

// A column shard of tensor parallelism gives the bits of the whole.
TEST(Linear, AColumnDoesNotDependOnTheColumnsBesideIt) {
  constexpr int64_t kTokens = 5, kDepth = 150, kOutputs = 700;
  RandomMatrix<float> x(kTokens, kDepth, 1), whole(kTokens, kOutputs, 3), part(kTokens, 207, 4);
  RandomMatrix<bf16> w(kOutputs, kDepth, 2);
  ThreadPool pool(2);
  Stream stream{&pool};
  linear_cpu({x.view(), w.view(), whole.view()}, stream);
  linear_cpu({x.view(), w.view().rows(101, 308), part.view()}, stream);
  for (int64_t t = 0; t < kTokens; ++t) {
    EXPECT_EQ(std::memcmp(&whole.view()(t, 101), &part.view()(t, 0), 207 * sizeof(float)), 0) << t;
  }
}

TEST(LinearDeathTest, RefusesShapesThatDoNotFit) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  ThreadPool pool(1);
  Stream stream{&pool};
  RandomMatrix<float> x(2, 16, 1), w(4, 15, 2), y(2, 4, 3);
  EXPECT_DEATH(linear_cpu({x.view(), w.view(), y.view()}, stream), "op.x.shape");
}

}  // namespace
}  // namespace accrete
