// What benchmarks draw instead of running a model: cache lengths, orders of pages, decisions. Pure and the same on every machine.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "kernels/dmc/dmc_update.h"
#include "launch/bench/kernels/model_shape.h"

namespace accrete::launch {

// splitmix64 (Steele, Lea and Flood 2014).
class Draws {
 public:
  explicit Draws(uint64_t seed) : state_(seed) {}
  uint64_t next();
  double unit();                      // in [0, 1)
  int64_t below(int64_t count);       // in [0, count), count < 2^32

 private:
  uint64_t state_;
};

// 0 .. count-1 in a random order.
std::vector<int32_t> shuffled(int64_t count, uint64_t seed);

struct LengthSpread {
  int64_t count = 0;
  double mean = 0;     // of all of them, but for rounding
  double ratio = 8.0;  // longest over shortest at most; their logarithms are uniform
};
std::vector<int32_t> spread_lengths(const LengthSpread& spread, uint64_t seed);

// Probability of accumulating for each of `heads` heads: uneven as kernels/dmc draws them, 1 / cr of the tokens kept on average.
std::vector<double> accumulate_rates(int64_t heads, double cr);

// Decisions of tokens and heads, [tokens, heads], 1: accumulate.
std::vector<uint8_t> drawn_decisions(int64_t tokens, std::span<const double> rates, uint64_t seed);

// The slot of every token, [tokens, heads], when heads hold `before` slots and the tokens decide so; an empty head's first token appends.
std::vector<int32_t> slots_of_tokens(std::span<const uint8_t> decisions, std::span<const int32_t> before);

// Projections [tokens, (Hq + 2 Hkv) D] of random values whose decision neurons (mode learned, dmc.offset) say `decisions`; importance
// neurons near the sigmoid's middle.
std::vector<bf16> drawn_qkv(const ModelShape& model, const DmcParams& dmc, std::span<const uint8_t> decisions);

// Logits [rows, vocab] in which a few tokens of every row stand out, as a model's do: the rest bell-shaped with deviation 2.
std::vector<float> drawn_logits(int64_t rows, int64_t vocab, uint64_t seed);

}  // namespace accrete::launch
