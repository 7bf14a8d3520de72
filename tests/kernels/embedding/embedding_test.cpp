#include "kernels/embedding/embedding.h"

#include <gtest/gtest.h>

#include "kernels/thread_pool.h"
#include "tests/kernels/random_matrix.h"

namespace accrete {
namespace {

template <class Table>
void expect_rows(int64_t tokens, int64_t width) {
  constexpr int64_t kBegin = 10, kRows = 20;
  RandomMatrix<Table> table(kRows, width, 1);
  RandomMatrix<float> y(tokens, width, 2);
  std::vector<int32_t> ids(tokens);
  for (int64_t t = 0; t < tokens; ++t) ids[t] = static_cast<int32_t>((t * 7 + 8) % 40);  // below, within and above the rows
  ThreadPool pool(2);
  Stream stream{&pool};
  embedding_cpu({View<const int32_t, 1>(ids.data(), {tokens}), table.view(), kBegin, y.view()}, stream);
  for (int64_t t = 0; t < tokens; ++t) {
    const int64_t row = ids[t] - kBegin;
    for (int64_t e = 0; e < width; ++e) {
      ASSERT_EQ(y.at(t, e), row >= 0 && row < kRows ? table.at(row, e) : 0.0) << t << " " << e;
    }
  }
  EXPECT_TRUE(y.gaps_untouched());
}

TEST(Embedding, CopiesItsRowsAndZeroesOthers) {
  expect_rows<float>(40, 33);
  expect_rows<bf16>(40, 33);
  expect_rows<bf16>(1, 1);
  expect_rows<bf16>(100, 1000);  // enough work to be split
}

TEST(Embedding, DoesNothingForNoTokens) { expect_rows<bf16>(0, 16); }

}  // namespace
}  // namespace accrete
