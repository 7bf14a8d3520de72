#include "kernels/gemm/linear.h"

#include <gtest/gtest.h>

#include "kernels/gemm/gemm_plans.h"
#include "tests/kernels/gemm/cuda_products.h"

namespace accrete {
namespace {

TEST(TokenBucket, IsTheNextOfTheTunedSizes) {
  for (int64_t exact : {1, 2, 4, 8, 16, 24, 120, 128, 144, 256, 288, 512, 576, 1024, 2048, 8192}) EXPECT_EQ(token_bucket(exact), exact);
  EXPECT_EQ(token_bucket(3), 4);
  EXPECT_EQ(token_bucket(9), 16);
  EXPECT_EQ(token_bucket(17), 24);
  EXPECT_EQ(token_bucket(129), 144);
  EXPECT_EQ(token_bucket(257), 288);
  EXPECT_EQ(token_bucket(513), 576);
  EXPECT_EQ(token_bucket(1025), 2048);
  for (int64_t tokens = 1; tokens < 5000; ++tokens) {
    EXPECT_GE(token_bucket(tokens), tokens);
    EXPECT_EQ(token_bucket(token_bucket(tokens)), token_bucket(tokens));
  }
}

#if defined(ACCRETE_CUDA)

// Products of bf16 are exact in fp32. The sums come in an order of cuBLASLt's, and the matrix units truncate: each of K additions,
// and 16 more for parts of K, may lose 2^-23 of what is at most the sum of magnitudes. A bf16 y is rounded once more.
template <class Y>
void expect_product(const Matrix<bf16>& x, const Matrix<bf16>& w, const Matrix<Y>& y) {
  for (int64_t t = 0; t < y.rows; ++t) {
    for (int64_t n = 0; n < y.columns; ++n) {
      const Dot exact = dot(x, t, w, n);
      const double sums = gamma(2.0 * static_cast<double>(x.columns + 16)) * exact.magnitude;
      const double stored = sizeof(Y) == 2 ? kBfloatRounding * (std::abs(exact.sum) + sums) : 0;
      ASSERT_NEAR(y.number(t, n), exact.sum, sums + stored) << "row " << t << " column " << n;
    }
  }
  expect_gaps_untouched(y);
}


template <class Y>
void try_product(int64_t tokens, const Sizes& sizes, Stream& stream) {
  SCOPED_TRACE(testing::Message() << "T " << tokens << " N " << sizes.outputs << " K " << sizes.depth);
  const auto x = random_matrix(tokens, sizes.depth, kGap, 1), w = random_matrix(sizes.outputs, sizes.depth, 0, 2);
  Device2D<bf16> x_there(x), w_there(w);
  Device2D<Y> y(Matrix<Y>(tokens, sizes.outputs, kGap));
  linear_cuda({x_there.view(), w_there.view(), y.view()}, stream);
  expect_product(x, w, y.read());
}

TEST_F(LinearOnCuda, EqualsTheProductWithinTheBound) {
  for (int64_t tokens : kTokens) {
    for (const Sizes& sizes : {Sizes{8, 8}, Sizes{24, 40}, Sizes{576, 192}, Sizes{72, 1544}}) {
      try_product<bf16>(tokens, sizes, stream());
      try_product<float>(tokens, sizes, stream());
    }
  }
}

TEST_F(LinearOnCuda, NoTokensAreNoWork) {
  Matrix<bf16> w = random_matrix(16, 16, 0, 1);
  Device2D<bf16> w_there(w);
  linear_cuda({View<bf16, 2>(nullptr, {0, 16}), w_there.view(), View<bf16, 2>(nullptr, {0, 16})}, stream());
  ACCRETE_CUDA_CHECK(cudaDeviceSynchronize());
}

class CapturedGraph {
 public:
  template <class Work>
  CapturedGraph(Stream& stream, const Work& work) : stream_(static_cast<cudaStream_t>(stream.cuda)) {
    cudaGraph_t graph = nullptr;
    ACCRETE_CUDA_CHECK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
    work();
    ACCRETE_CUDA_CHECK(cudaStreamEndCapture(stream_, &graph));
    ACCRETE_CUDA_CHECK(cudaGraphInstantiate(&run_, graph, 0));
    cudaGraphDestroy(graph);
  }
  ~CapturedGraph() { cudaGraphExecDestroy(run_); }
  void replay() { ACCRETE_CUDA_CHECK(cudaGraphLaunch(run_, stream_)); }

 private:
  cudaStream_t stream_;
  cudaGraphExec_t run_ = nullptr;
};

// A replay reads x anew: after x has changed it gives what a call gives.
TEST_F(LinearOnCuda, CanBeCapturedInAGraph) {
  const auto first = random_matrix(24, 256, kGap, 1), second = random_matrix(24, 256, kGap, 3), w = random_matrix(512, 256, 0, 2);
  Fp8Product<bf16> fp8_product(first, w, stream());
  Device2D<bf16> w_there(w);
  Device2D<bf16> y(Matrix<bf16>(24, 512, kGap));
  const Linear rounded = fp8_product.op(), plain{rounded.x, w_there.view(), y.view()};
  const auto both = [&] {
    linear_cuda(plain, stream());
    linear_cuda(rounded, stream());
  };
  both();
  const auto before = y.read();
  CapturedGraph graph(stream(), both);
  ACCRETE_CUDA_CHECK(cudaDeviceSynchronize());
  ACCRETE_CUDA_CHECK(cudaMemcpy(rounded.x.data, second.values.data(), second.values.size() * sizeof(bf16), cudaMemcpyHostToDevice));
  graph.replay();
  const auto replayed = y.read(), fp8_replayed = fp8_product.y();
  both();
  const auto called = y.read(), fp8_called = fp8_product.y();
  EXPECT_NE(replayed.number(0, 0), before.number(0, 0));
  for (size_t i = 0; i < called.values.size(); ++i) {
    ASSERT_EQ(replayed.values[i].bits, called.values[i].bits) << i;
    ASSERT_EQ(fp8_replayed.values[i].bits, fp8_called.values[i].bits) << i;
  }
}

// Tuned algorithms serve the tokens of their bucket and rows further apart than those they were tuned for, and the product stays right.
TEST_F(LinearOnCuda, TuningKeepsTheProduct) {
  const Sizes sizes{576, 192};
  Device2D<bf16> w0(random_matrix(sizes.outputs, sizes.depth, 0, 2)), w1(random_matrix(sizes.outputs, sizes.depth, 0, 5));
  CudaDevice::Memory<uint8_t> w8(std::vector<uint8_t>(sizes.outputs * sizes.depth, 0x30));
  const View<fp8, 2> w8_view(reinterpret_cast<fp8*>(w8.data()), {sizes.outputs, sizes.depth});
  const std::vector<GemmToTune> products{{{w0.view(), w1.view()}, DType::bf16}, {{w0.view()}, DType::f32}, {{w8_view}, DType::bf16}};
  const std::vector<int64_t> tokens{600, 3, 4, 16};  // buckets 4, 16, 640
  const auto tuned = plans_->tune(products, tokens, stream());
  ASSERT_EQ(tuned.size(), 9u);
  for (const TunedGemm& t : tuned) {
    EXPECT_GE(t.candidates, 1);
    EXPECT_GT(t.best_us, 0);
    EXPECT_LE(t.best_us, t.first_us);
    EXPECT_EQ(t.outputs, sizes.outputs);
  }
  EXPECT_EQ(tuned[0].tokens, 4);
  EXPECT_EQ(tuned[2].tokens, 640);
  for (int64_t count : {3, 4, 13, 16, 600}) {
    try_product<bf16>(count, sizes, stream());
    try_product<float>(count, sizes, stream());
  }
}

// Bugs end in a CHECK before anything touches the device, so that this runs anywhere.
TEST(LinearOnCudaDeathTest, RefusesWhatItCannotCompute) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  alignas(16) static uint16_t memory[64 * 64];
  const auto matrix = [](int64_t rows, int64_t columns, int64_t stride = 0, int64_t offset = 0) {
    return View<bf16, 2>(reinterpret_cast<bf16*>(memory) + offset, {rows, columns}, {stride ? stride : columns, 1});
  };
  const auto bytes = [](int64_t rows, int64_t columns) { return View<fp8, 2>(reinterpret_cast<fp8*>(memory), {rows, columns}); };
  const View<float, 1> floats(reinterpret_cast<float*>(memory), {16});
  Stream stream;
  EXPECT_DEATH(linear_cuda({matrix(2, 16), matrix(12, 16), matrix(2, 12)}, stream), "outputs % multiple");
  EXPECT_DEATH(linear_cuda({matrix(2, 12), matrix(16, 12), matrix(2, 16)}, stream), "depth % multiple");
  EXPECT_DEATH(linear_cuda({matrix(2, 16, 20), matrix(16, 16), matrix(2, 16)}, stream), "aligned");
  EXPECT_DEATH(linear_cuda({matrix(2, 16, 16, 1), matrix(16, 16), matrix(2, 16)}, stream), "aligned");
  EXPECT_DEATH(linear_cuda({matrix(2, 16), matrix(16, 16, 24), matrix(2, 16)}, stream), "op.w.stride");
  EXPECT_DEATH(linear_cuda({matrix(2, 16), matrix(16, 16), matrix(3, 16)}, stream), "op.y.shape");
  EXPECT_DEATH(linear_cuda({matrix(2, 16), matrix(16, 16), matrix(2, 16)}, stream), "stream.gemm");
  Linear fp8_op{matrix(16, 24), bytes(16, 24), matrix(16, 16)};
  EXPECT_DEATH(linear_cuda(fp8_op, stream), "op.w_scale");
  fp8_op.w_scale = floats;
  fp8_op.x_scale = floats;
  EXPECT_DEATH(linear_cuda(fp8_op, stream), "op.x8.shape");
  fp8_op.x8 = bytes(16, 24);
  EXPECT_DEATH(linear_cuda(fp8_op, stream), "depth % multiple");
}

#endif

}  // namespace
}  // namespace accrete
