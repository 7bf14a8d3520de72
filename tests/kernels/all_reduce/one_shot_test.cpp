#include "kernels/all_reduce/one_shot.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>

#include "tests/kernels/all_reduce/one_shot_ranks.h"
#include "tests/kernels/random_matrix.h"

namespace accrete {
namespace {

// Streams that share a queue of the GPU run one after another, and ranks on them would wait for each other in vain. CUDA reads this when
// it starts, which is after static initialisation.
[[maybe_unused]] const int kQueues = setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);

template <class RanksType, class ElementType>
struct Case {
  using Ranks = RanksType;
  using Element = ElementType;
};
using Cases = testing::Types<Case<CpuRanks, float>, Case<CpuRanks, bf16>
#if defined(ACCRETE_CUDA)
                             ,
                             Case<CudaRanks, float>, Case<CudaRanks, bf16>
#endif
                             >;
struct CaseNames {
  template <class C>
  static std::string GetName(int) {
    return std::string(C::Ranks::kName) + "_" + name_of(dtype_of<typename C::Element>::value);
  }
};

template <class T>
std::vector<T> random(size_t count, unsigned seed) {
  std::mt19937 engine(seed);
  std::normal_distribution<float> normal;
  std::vector<T> values(count);
  for (T& value : values) value = T(normal(engine));
  return values;
}

// Float32 sums in rank order: what every rank must hold, to the bit, before rounding.
template <class T>
std::vector<float> sums_of(const std::vector<std::vector<T>>& parts) {
  std::vector<float> sums(parts[0].begin(), parts[0].end());
  for (size_t r = 1; r < parts.size(); ++r) {
    for (size_t i = 0; i < sums.size(); ++i) sums[i] += static_cast<float>(parts[r][i]);
  }
  return sums;
}

template <class C>
class OneShotTest : public testing::Test {
 protected:
  using Ranks = typename C::Ranks;
  using T = typename C::Element;
  template <class U>
  using Memory = typename Ranks::template Memory<U>;

  void SetUp() override {
    if (const auto reason = Ranks::unavailable()) GTEST_SKIP() << *reason;
  }

  // `times` sums in a row of n elements that begin `skip` elements into their memory.
  void try_sum(int ranks, int64_t n, int64_t skip, int times) {
    SCOPED_TRACE(testing::Message() << ranks << " ranks, n " << n << ", skip " << skip);
    Ranks rig(ranks);
    std::vector<std::vector<T>> parts;
    std::vector<std::unique_ptr<Memory<T>>> memory;
    std::vector<OneShotSum> views;
    for (int r = 0; r < ranks; ++r) {
      auto padded = random<T>(n + skip + 1, 100 * ranks + r);
      memory.push_back(std::make_unique<Memory<T>>(padded));
      views.push_back({View<T, 1>(memory[r]->data() + skip, {n}), {}});
      parts.push_back(std::move(padded));
    }
    for (int i = 0; i < times; ++i) rig.sum(views);
    auto expected = parts;
    for (int i = 0; i < times; ++i) {
      const auto sums = sums_of(expected);
      for (auto& part : expected) {
        for (int64_t at = skip; at < skip + n; ++at) part[at] = T(sums[at]);
      }
    }
    for (int r = 0; r < ranks; ++r) {
      const auto result = memory[r]->read();
      for (size_t i = 0; i < result.size(); ++i) ASSERT_EQ(float(result[i]), float(expected[r][i])) << "rank " << r << " element " << i;
    }
  }

  void try_scaled_sum(int ranks, int64_t tokens, int64_t width);

  template <class W>
  void try_norm(int ranks, int64_t tokens, int64_t width, int64_t gap);
};
TYPED_TEST_SUITE(OneShotTest, Cases, CaseNames);

// One element, odd numbers, pieces of 16 bytes and parts of them, more than the blocks' first turn, more than the staging memory of
// 64 KiB, which takes several operations.
TYPED_TEST(OneShotTest, SumsInRankOrderToTheBit) {
  for (int ranks : {1, 2, 3, 4, 8}) {
    for (int64_t n : {1, 7, 8, 4096, 5001, 16384, 40001}) this->try_sum(ranks, n, 0, 1);
  }
  this->try_sum(2, 5001, 1, 1);  // not aligned
  this->try_sum(4, 8, 3, 1);
}

// Nobody waits between these on the host, so ranks run ahead of each other: both halves of the staging memory are used many times.
TYPED_TEST(OneShotTest, SumsFollowEachOther) {
  for (int ranks : {2, 4, 8}) this->try_sum(ranks, 3000, 0, 30);
  this->try_sum(2, 40001, 0, 30);
}

template <class C>
void OneShotTest<C>::try_scaled_sum(int ranks, int64_t tokens, int64_t width) {
  SCOPED_TRACE(testing::Message() << ranks << " ranks, T " << tokens << ", E " << width);
  Ranks rig(ranks);
  std::vector<std::vector<T>> parts;
  std::vector<std::unique_ptr<Memory<T>>> memory;
  std::vector<std::unique_ptr<Memory<float>>> factors;
  std::vector<OneShotSum> ops(ranks);
  for (int r = 0; r < ranks; ++r) {
    auto part = random<T>(tokens * width, 100 * ranks + r);
    const auto rows = random<float>(tokens, 7 + r), columns = random<float>(width, 70 + r);
    memory.push_back(std::make_unique<Memory<T>>(part));
    for (const auto& numbers : {rows, columns}) factors.push_back(std::make_unique<Memory<float>>(numbers));
    ops[r] = {View<T, 1>(memory[r]->data(), {tokens * width}),
              {View<const float, 1>(factors[2 * r]->data(), {tokens}), View<const float, 1>(factors[2 * r + 1]->data(), {width})}};
    for (int64_t i = 0; i < tokens * width; ++i) part[i] = T(static_cast<float>(part[i]) * rows[i / width] * columns[i % width]);
    parts.push_back(std::move(part));
  }
  rig.sum(ops);
  const auto sums = sums_of(parts);
  for (int r = 0; r < ranks; ++r) {
    const auto result = memory[r]->read();
    for (size_t i = 0; i < result.size(); ++i) ASSERT_EQ(float(result[i]), float(T(sums[i]))) << "rank " << r << " element " << i;
  }
}

// Each rank's parts have factors of their own; the last ones take several launches, of whole rows.
TYPED_TEST(OneShotTest, SumsScaledPartsToTheBit) {
  for (int ranks : {1, 2, 4}) {
    for (const auto& [tokens, width] : {std::pair<int64_t, int64_t>{1, 16}, {3, 576}, {7, 4096}, {30, 3072}}) this->try_scaled_sum(ranks, tokens, width);
  }
}

// Bounds as in rms_norm_test: the sum of squares is a chain of at most E / 16 + 16 roundings on the CPU, and of fewer on CUDA (8 in a
// thread up to 8192 elements, 5 across a warp, at most 32 across warps).
template <class C>
template <class W>
void OneShotTest<C>::try_norm(int ranks, int64_t tokens, int64_t width, int64_t gap) {
  SCOPED_TRACE(testing::Message() << ranks << " ranks, T " << tokens << ", E " << width << ", gap " << gap);
  const int64_t stride = width + gap;
  const float eps = 1e-5f;
  const auto x_before = random<T>(tokens * stride, 1);
  std::vector<std::vector<T>> deltas;
  for (int r = 0; r < ranks; ++r) deltas.push_back(random<T>(tokens * stride, 2 + r));
  std::vector<W> weight(width);
  for (int64_t e = 0; e < width; ++e) weight[e] = W(1.0f + 0.01f * static_cast<float>(e % 37));
  Ranks rig(ranks);
  std::vector<std::unique_ptr<Memory<T>>> xs, ds, ys;
  Memory<W> w(weight);
  std::vector<RmsNorm> ops(ranks);
  const auto view = [&](Memory<T>& memory) { return View<T, 2>(memory.data(), {tokens, width}, {stride, 1}); };
  for (int r = 0; r < ranks; ++r) {
    xs.push_back(std::make_unique<Memory<T>>(x_before));
    ds.push_back(std::make_unique<Memory<T>>(deltas[r]));
    ys.push_back(std::make_unique<Memory<T>>(std::vector<T>(tokens * stride, T(777.0f))));
    ops[r] = {view(*xs[r]), view(*ds[r]), View<W, 1>(w.data(), {width}), view(*ys[r]), eps};
  }
  rig.norm(ops);

  const auto sums = sums_of(deltas);
  const auto first = ys[0]->read();
  const double bound = gamma(static_cast<double>(width) / 32 + 12) + (sizeof(T) == 2 ? 0x1p-8 : kUnitRoundoff);
  for (int r = 0; r < ranks; ++r) {
    const auto x = xs[r]->read(), y = ys[r]->read();
    for (int64_t t = 0; t < tokens; ++t) {
      double squares = 0;
      for (int64_t e = 0; e < stride; ++e) {
        const int64_t i = t * stride + e;
        const float now = e < width ? static_cast<float>(T(static_cast<float>(x_before[i]) + sums[i])) : static_cast<float>(x_before[i]);
        ASSERT_EQ(static_cast<float>(x[i]), now) << "rank " << r << " row " << t << " column " << e;
        ASSERT_EQ(static_cast<float>(y[i]), static_cast<float>(first[i])) << "ranks 0 and " << r << " differ";
        if (e < width) squares += std::pow(static_cast<double>(now), 2);
      }
      const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + eps);
      for (int64_t e = 0; e < width; ++e) {
        const double exact = static_cast<float>(x[t * stride + e]) * scale * static_cast<float>(weight[e]);
        ASSERT_NEAR(static_cast<float>(y[t * stride + e]), exact, bound * std::abs(exact)) << "row " << t << " column " << e;
      }
      for (int64_t e = width; e < stride; ++e) ASSERT_EQ(static_cast<float>(y[t * stride + e]), static_cast<float>(T(777.0f))) << "written between rows";
    }
  }
}

// More rows than blocks, rows longer than a block's registers, rows with unaligned ends, and staging memory that takes a few rows at a time.
TYPED_TEST(OneShotTest, AddsAndNormalises) {
  for (int ranks : {1, 2, 3, 4, 8}) {
    this->template try_norm<float>(ranks, 3, 64, 0);
    this->template try_norm<float>(ranks, 2, 577, 2);
    this->template try_norm<bf16>(ranks, 5, 576, 8);
    this->template try_norm<bf16>(ranks, 1, 4096, 0);
    this->template try_norm<bf16>(ranks, 2, 8192, 0);
  }
  this->template try_norm<float>(2, 70, 1024, 0);
  this->template try_norm<float>(2, 2, 16384, 0);
  this->template try_norm<float>(2, 2, 9001, 0);
  this->template try_norm<float>(2, 0, 64, 0);
  this->template try_norm<float>(2, 3, 1, 0);
}

}  // namespace
}  // namespace accrete
