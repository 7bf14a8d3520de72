#include "launch/bench/kernels/draws.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/check.h"
#include "kernels/device/random_value.h"

namespace accrete::launch {

uint64_t Draws::next() {
  state_ += 0x9e3779b97f4a7c15u;
  uint64_t x = state_;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

double Draws::unit() { return static_cast<double>(next() >> 11) * 0x1p-53; }

int64_t Draws::below(int64_t count) { return static_cast<int64_t>((next() >> 32) * static_cast<uint64_t>(count) >> 32); }

std::vector<int32_t> shuffled(int64_t count, uint64_t seed) {
  std::vector<int32_t> order(count);
  std::iota(order.begin(), order.end(), 0);
  Draws draws(seed);
  for (int64_t i = count - 1; i > 0; --i) std::swap(order[i], order[draws.below(i + 1)]);
  return order;
}

std::vector<int32_t> spread_lengths(const LengthSpread& spread, uint64_t seed) {
  Draws draws(seed);
  std::vector<double> drawn(spread.count);
  for (double& value : drawn) value = std::pow(spread.ratio, draws.unit());
  const double sum = std::accumulate(drawn.begin(), drawn.end(), 0.0);
  const double scale = spread.mean * static_cast<double>(spread.count) / sum;
  std::vector<int32_t> lengths;
  for (double value : drawn) lengths.push_back(std::max(1, static_cast<int32_t>(std::lround(value * scale))));
  return lengths;
}

std::vector<double> accumulate_rates(int64_t heads, double cr) {
  DmcParams dmc;
  dmc.synthetic_cr = cr;
  dmc.model_layers = 1;
  dmc.model_kv_heads = static_cast<int>(heads);
  std::vector<double> rates;
  for (int head = 0; head < heads; ++head) rates.push_back(synthetic_rate(dmc, 0, head));
  return rates;
}

std::vector<uint8_t> drawn_decisions(int64_t tokens, std::span<const double> rates, uint64_t seed) {
  Draws draws(seed);
  std::vector<uint8_t> decisions;
  decisions.reserve(tokens * rates.size());
  for (int64_t t = 0; t < tokens; ++t) {
    for (double rate : rates) decisions.push_back(draws.unit() < rate ? 1 : 0);
  }
  return decisions;
}

std::vector<int32_t> slots_of_tokens(std::span<const uint8_t> decisions, std::span<const int32_t> before) {
  std::vector<int32_t> count(before.begin(), before.end()), slots;
  slots.reserve(decisions.size());
  for (size_t i = 0; i < decisions.size(); ++i) {
    int32_t& mine = count[i % before.size()];
    if (decisions[i] == 0 || mine == 0) ++mine;
    slots.push_back(mine - 1);
  }
  return slots;
}

std::vector<bf16> drawn_qkv(const ModelShape& model, const DmcParams& dmc, std::span<const uint8_t> decisions) {
  const int64_t width = model.qkv_width(), size = model.head_size, tokens = static_cast<int64_t>(decisions.size()) / model.kv_heads;
  std::vector<bf16> values(tokens * width);
  for (int64_t i = 0; i < tokens * width; ++i) values[i] = bf16(random_value(1, static_cast<uint64_t>(i), 1.0f));
  const auto last = [&](int64_t token, int64_t head) -> bf16& { return values[token * width + (head + 1) * size - 1]; };
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t h = 0; h < model.query_heads; ++h) last(t, h) = bf16(static_cast<float>(last(t, h)) - dmc.offset);
    for (int64_t h = 0; h < model.kv_heads; ++h) {
      last(t, model.query_heads + h) = bf16(dmc.offset + (decisions[t * model.kv_heads + h] ? 3.0f : -3.0f));
    }
  }
  return values;
}

std::vector<float> drawn_logits(int64_t rows, int64_t vocab, uint64_t seed) {
  constexpr int kStandOut = 40;
  constexpr float kDeviation = 2.0f, kRise = 12.0f;
  Draws draws(seed);
  std::vector<float> logits(rows * vocab);
  for (float& logit : logits) {
    const uint64_t bits = draws.next();  // as four uniforms, whose sum has the variance 4 / 12
    const double sum = static_cast<double>((bits & 0xffffu) + (bits >> 16 & 0xffffu) + (bits >> 32 & 0xffffu) + (bits >> 48));
    logit = kDeviation * static_cast<float>((sum / 65535.0 - 2.0) * std::sqrt(3.0) + draws.unit() * 0x1p-16);
  }
  for (int64_t i = 0; i < rows * kStandOut; ++i) logits[i / kStandOut * vocab + draws.below(vocab)] += kRise * static_cast<float>(draws.unit());
  return logits;
}

}  // namespace accrete::launch
