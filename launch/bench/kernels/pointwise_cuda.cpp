// The kernels around the products: everything that goes over rows once.
#include <fmt/format.h>

#include <cmath>

#include "kernels/embedding/embedding.h"
#include "kernels/gemm/quantize_fp8.h"
#include "kernels/mlp/silu_mul.h"
#include "kernels/norm/rms_norm.h"
#include "kernels/rope/rope_angles.h"
#include "launch/bench/kernels/costs.h"
#include "launch/bench/kernels/draws.h"
#include "launch/bench/kernels/lab.h"

namespace accrete::launch {
namespace {

constexpr int64_t kMostTurns = 32;

struct Case {
  const ModelShape& model;
  int64_t tokens;
  Label label(const char* kernel, const std::string& shape) const { return {kernel, std::string(model.name), fmt::format("T={} {}", tokens, shape)}; }
};

// The residual grows by delta with every launch; at a thousandth of it that changes nothing.
void measure_rms_norm(Lab& lab, const Case& c) {
  const int64_t T = c.tokens, E = c.model.hidden;
  const Label label = c.label("rms_norm", fmt::format("E={} +residual", E));
  if (!lab.wants(label)) return;
  const Cost cost = rms_norm_cost(T, E);
  const int64_t turns = lab.turns_past_cache(cost.bytes, kMostTurns);
  const auto x = random_array<bf16>(turns * T * E, 1, 1.0f, lab.stream()), delta = random_array<bf16>(turns * T * E, 2, 1e-3f, lab.stream());
  const auto weight = random_array<bf16>(E, 3, 1.0f, lab.stream());
  const DeviceArray<bf16> y(turns * T * E);
  const auto launch = [&](int64_t turn) {
    const int64_t first = turn * T * E;
    rms_norm_cuda({x.view<2>({T, E}, first), delta.view<2>({T, E}, first), weight.flat(), y.view<2>({T, E}, first)}, lab.stream());
  };
  lab.record(label, cost, {.launch = launch, .turns = turns, .output = y.flat()});
}

void measure_silu_mul(Lab& lab, const Case& c) {
  const int64_t T = c.tokens, F = c.model.mlp;
  const Label label = c.label("silu_mul", fmt::format("F={}", F));
  if (!lab.wants(label)) return;
  const Cost cost = silu_mul_cost(T, F);
  const int64_t turns = lab.turns_past_cache(cost.bytes, kMostTurns);
  const auto gate_up = random_array<bf16>(turns * T * 2 * F, 1, 1.0f, lab.stream());
  const DeviceArray<bf16> y(turns * T * F);
  const auto launch = [&](int64_t turn) { silu_mul_cuda({gate_up.view<2>({T, 2 * F}, turn * T * 2 * F), y.view<2>({T, F}, turn * T * F)}, lab.stream()); };
  lab.record(label, cost, {.launch = launch, .turns = turns, .output = y.flat()});
}

void measure_embedding(Lab& lab, const Case& c) {
  const int64_t T = c.tokens, E = c.model.hidden, V = c.model.vocab;
  const Label label = c.label("embedding", fmt::format("V={} E={}", V, E));
  if (!lab.wants(label)) return;
  const Cost cost = embedding_cost(T, E);
  const int64_t turns = lab.turns_past_cache(cost.bytes, kMostTurns);
  Draws draws(1);
  std::vector<int32_t> drawn(turns * T);
  for (int32_t& id : drawn) id = static_cast<int32_t>(draws.below(V));
  const DeviceArray<int32_t> ids(drawn, lab.stream());
  const auto table = random_array<bf16>(V * E, 2, 1.0f, lab.stream());
  const DeviceArray<bf16> y(turns * T * E);
  const auto launch = [&](int64_t turn) {
    embedding_cuda({ids.view<1>({T}, turn * T), table.view<2>({V, E}), 0, y.view<2>({T, E}, turn * T * E)}, lab.stream());
  };
  lab.record(label, cost, {.launch = launch, .turns = turns, .output = y.flat()});
}

void measure_rope_angles(Lab& lab, const Case& c) {
  const int64_t T = c.tokens, half = c.model.head_size / 2;
  const Label label = c.label("rope_angles", fmt::format("D={}", c.model.head_size));
  if (!lab.wants(label)) return;
  Draws draws(1);
  std::vector<int32_t> drawn(T);
  for (int32_t& position : drawn) position = static_cast<int32_t>(draws.below(4096));
  std::vector<double> frequencies(half);
  for (int64_t i = 0; i < half; ++i) frequencies[i] = std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
  const DeviceArray<int32_t> position(drawn, lab.stream());
  const DeviceArray<double> inv_freq(frequencies, lab.stream());
  const DeviceArray<float> cos(T * half), sin(T * half);
  const auto launch = [&](int64_t) { rope_angles_cuda({position.flat(), inv_freq.flat(), cos.view<2>({T, half}), sin.view<2>({T, half})}, lab.stream()); };
  lab.record(label, rope_angles_cost(T, c.model.head_size), {.launch = launch, .output = sin.flat()});
}

void measure_quantize(Lab& lab, const Case& c, int64_t width) {
  const int64_t T = c.tokens;
  const Label label = c.label("quantize_fp8", fmt::format("K={}", width));
  if (!lab.wants(label)) return;
  const Cost cost = quantize_fp8_cost(T, width);
  const int64_t turns = lab.turns_past_cache(cost.bytes, kMostTurns);
  const auto x = random_array<bf16>(turns * T * width, 1, 1.0f, lab.stream());
  const DeviceArray<fp8> x8(turns * T * width);
  const DeviceArray<float> scale(turns * T);
  const auto launch = [&](int64_t turn) {
    quantize_fp8_cuda({x.view<2>({T, width}, turn * T * width), x8.view<2>({T, width}, turn * T * width), scale.view<1>({T}, turn * T)}, lab.stream());
  };
  lab.record(label, cost, {.launch = launch, .turns = turns, .output = x8.flat()});
}

// By ones, so that what is scaled again and again stays what it is.
void measure_apply_scales(Lab& lab, const Case& c) {
  const int64_t T = c.tokens, N = 2 * c.model.mlp;
  const Label label = c.label("apply_scales", fmt::format("N={}", N));
  if (!lab.wants(label)) return;
  const Cost cost = apply_scales_cost(T, N);
  const int64_t turns = lab.turns_past_cache(cost.bytes, kMostTurns);
  const auto y = random_array<bf16>(turns * T * N, 1, 1.0f, lab.stream());
  const DeviceArray<float> rows(std::vector<float>(T, 1.0f), lab.stream()), columns(std::vector<float>(N, 1.0f), lab.stream());
  const auto launch = [&](int64_t turn) { apply_scales_cuda({y.view<2>({T, N}, turn * T * N), rows.flat(), columns.flat()}, lab.stream()); };
  lab.record(label, cost, {.launch = launch, .turns = turns});
}

DeviceArray<float> ones(int64_t count, Lab& lab) { return {std::vector<float>(count, 1.0f), lab.stream()}; }

// Between fp8 products; `apart`: as apply_scales, the op and quantize_fp8, one after another. Factors are ones, so that what is scaled again and
// again stays what it is.
void measure_rms_norm_fp8(Lab& lab, const Case& c, bool apart) {
  const int64_t T = c.tokens, E = c.model.hidden;
  const Label label = c.label("rms_norm_fp8", fmt::format("E={} +residual{}", E, apart ? " apart" : ""));
  if (!lab.wants(label)) return;
  const Cost cost = rms_norm_fp8_cost(T, E);
  const int64_t turns = lab.turns_past_cache(cost.bytes, kMostTurns);
  const auto x = random_array<bf16>(turns * T * E, 1, 1.0f, lab.stream()), delta = random_array<bf16>(turns * T * E, 2, 1e-3f, lab.stream());
  const auto weight = random_array<float>(E, 3, 1.0f, lab.stream());
  const DeviceArray<float> rows = ones(T, lab), columns = ones(E, lab), scale(turns * T);
  const DeviceArray<bf16> y(apart ? turns * T * E : 0);
  const DeviceArray<fp8> y8(turns * T * E);
  const auto launch = [&](int64_t turn) {
    const int64_t first = turn * T * E;
    const Fp8Rows out{y8.view<2>({T, E}, first), scale.view<1>({T}, turn * T)};
    RmsNorm op{x.view<2>({T, E}, first), delta.view<2>({T, E}, first), weight.flat(), {}};
    if (!apart) {
      op.delta_factors = {rows.flat(), columns.flat()};
      op.y8 = out;
      return rms_norm_cuda(op, lab.stream());
    }
    const View<bf16, 2> whole = y.view<2>({T, E}, first);
    op.y = whole;
    apply_scales_cuda({op.delta, rows.flat(), columns.flat()}, lab.stream());
    rms_norm_cuda(op, lab.stream());
    quantize_fp8_cuda({whole, out.values, out.scale}, lab.stream());
  };
  lab.record(label, cost, {.launch = launch, .turns = turns, .output = y8.flat()});
}

void measure_silu_mul_fp8(Lab& lab, const Case& c, bool apart) {
  const int64_t T = c.tokens, F = c.model.mlp;
  const Label label = c.label("silu_mul_fp8", fmt::format("F={}{}", F, apart ? " apart" : ""));
  if (!lab.wants(label)) return;
  const Cost cost = silu_mul_fp8_cost(T, F);
  const int64_t turns = lab.turns_past_cache(cost.bytes, kMostTurns);
  const auto gate_up = random_array<bf16>(turns * T * 2 * F, 1, 1.0f, lab.stream());
  const DeviceArray<float> rows = ones(T, lab), columns = ones(2 * F, lab), scale(turns * T);
  const DeviceArray<bf16> y(apart ? turns * T * F : 0);
  const DeviceArray<fp8> y8(turns * T * F);
  const auto launch = [&](int64_t turn) {
    const Fp8Rows out{y8.view<2>({T, F}, turn * T * F), scale.view<1>({T}, turn * T)};
    SiluMul op{gate_up.view<2>({T, 2 * F}, turn * T * 2 * F), {}};
    if (!apart) {
      op.factors = {rows.flat(), columns.flat()};
      op.y8 = out;
      return silu_mul_cuda(op, lab.stream());
    }
    const View<bf16, 2> whole = y.view<2>({T, F}, turn * T * F);
    op.y = whole;
    apply_scales_cuda({op.gate_up, rows.flat(), columns.flat()}, lab.stream());
    silu_mul_cuda(op, lab.stream());
    quantize_fp8_cuda({whole, out.values, out.scale}, lab.stream());
  };
  lab.record(label, cost, {.launch = launch, .turns = turns, .output = y8.flat()});
}

}  // namespace

void measure_pointwise(Lab& lab, const ModelShape& model) {
  const std::vector<int64_t> counts = lab.quick() ? std::vector<int64_t>{1, 256} : std::vector<int64_t>{1, 64, 256, 8192};
  for (int64_t tokens : counts) {
    const Case c{model, tokens};
    measure_rms_norm(lab, c);
    measure_silu_mul(lab, c);
    measure_embedding(lab, c);
    measure_rope_angles(lab, c);
    measure_quantize(lab, c, model.hidden);
    measure_quantize(lab, c, model.mlp);
    measure_apply_scales(lab, c);
  }
  for (int64_t tokens : lab.quick() ? std::vector<int64_t>{1, 256} : std::vector<int64_t>{1, 64, 256, 4096}) {
    for (const bool apart : {true, false}) {
      measure_rms_norm_fp8(lab, {model, tokens}, apart);
      measure_silu_mul_fp8(lab, {model, tokens}, apart);
    }
  }
}

}  // namespace accrete::launch
