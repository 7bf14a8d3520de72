// Which of cuBLASLt's algorithms computes a product, remembered per shape. One for each device and thread: its workspace serves
// one stream at a time. Its owner makes it once the device is current and points Stream::gemm at it; graphs captured with it
// must not outlive it. linear_cuda is its only caller beside start-up code. Exists in builds with CUDA; errors throw CudaError.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "kernels/stream.h"
#include "kernels/view.h"

namespace accrete {

// y = x w^T as cuBLASLt is given it; no scales.
struct GemmOperands {
  AnyView<2> x;  // [T, K] bf16 or fp8
  AnyView<2> w;  // [N, K] of the same type, contiguous
  AnyView<2> y;  // [T, N] out, bf16 or f32
};

// What cuBLASLt and these plans need of a product: types, shapes, K and N multiples of 8 (16 for fp8), rows of 16 bytes.
// A CHECK fails otherwise.
void check_gemm(const GemmOperands& op);

// A product to be tuned: the matrices of one shape that a step reads one after another, so that timing finds them in memory
// rather than in the level-two cache as far as a step does.
struct GemmToTune {
  std::vector<AnyView<2>> weights;  // [N, K] each, bf16 or fp8
  DType out = DType::bf16;
};

struct TunedGemm {
  int64_t tokens = 0, outputs = 0, depth = 0;
  DType weights = DType::bf16, out = DType::bf16;
  int candidates = 0;
  float first_us = 0;  // of the heuristic's first answer
  float best_us = 0;   // of the one taken
};

// The number of tokens whose tuned algorithm serves `tokens`, and to which a batch in a graph is padded: 1, 2, 4, 8, multiples of 8 to 128,
// of 16 to 256, of 32 to 512, of 64 to 1024, then powers of two.
constexpr int64_t token_bucket(int64_t tokens) {
  int64_t power = 1;
  while (power < tokens) power *= 2;
  if (tokens <= 8 || tokens > 1024) return power;
  const int64_t step = power <= 128 ? 8 : power / 16;
  return (tokens + step - 1) / step * step;
}

class GemmPlans {
 public:
  GemmPlans();  // takes 32 MiB of the current device
  ~GemmPlans();
  GemmPlans(const GemmPlans&) = delete;
  GemmPlans& operator=(const GemmPlans&) = delete;

  // Enqueues the product, which check_gemm has passed, T > 0. A shape's first call asks cuBLASLt on the host, which neither waits for the device nor allocates on
  // it: the algorithm tuned for its bucket if there is one that can do the exact shape, else the heuristic's first answer.
  void multiply(const GemmOperands& op, Stream& stream);

  // Times up to 8 algorithms for each product and bucket of `tokens`, as graphs, and keeps the fastest from now on. Waits, and
  // allocates x and y for the largest product meanwhile: for start-up, before caches take the memory. Not inside a capture.
  std::vector<TunedGemm> tune(std::span<const GemmToTune> products, std::span<const int64_t> tokens, Stream& stream);

 private:
  class State;
  std::unique_ptr<State> state_;
};

}  // namespace accrete
