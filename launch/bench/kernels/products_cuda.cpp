// The products of a Llama, with weights that lie in memory as in a step: copies larger together than the level-two cache take turns.
#include <fmt/format.h>

#include <algorithm>

#include "kernels/gemm/linear.h"
#include "launch/bench/kernels/costs.h"
#include "launch/bench/kernels/lab.h"

namespace accrete::launch {
namespace {

constexpr int64_t kMostCopies = 16;

struct Product {
  const char* name;
  int64_t outputs, depth;
  DType out = DType::bf16;
};

std::vector<Product> products_of(const ModelShape& m) {
  return {{"qkv", m.qkv_width(), m.hidden},
          {"o", m.hidden, m.query_heads * m.head_size},
          {"gate_up", 2 * m.mlp, m.hidden},
          {"down", m.hidden, m.mlp},
          {"lm_head", m.vocab, m.hidden, DType::f32}};
}

template <class T>
struct ProductBench {
  Lab& lab;
  const ModelShape& model;
  Product product;

  static constexpr bool kNarrow = sizeof(T) == 1;
  Label label(int64_t tokens) const {
    return {kNarrow ? "linear fp8" : "linear bf16", std::string(model.name),
            fmt::format("{} M={} N={} K={}", product.name, tokens, product.outputs, product.depth)};
  }
  std::vector<int64_t> wanted() const {
    std::vector<int64_t> counts = lab.quick() ? std::vector<int64_t>{1, 64, 256} : std::vector<int64_t>{1, 8, 16, 64, 128, 256, 512, 4096};
    std::erase_if(counts, [&](int64_t tokens) { return !lab.wants(label(tokens)); });
    return counts;
  }
  void run();
  void run_tokens(int64_t tokens, const std::vector<Linear>& turns, const TunedGemm& tuned);
};

// fp8: the bare product of rounded activations; rounding and scaling have rows of their own (quantize_fp8, apply_scales).
template <class T>
void ProductBench<T>::run() {
  const std::vector<int64_t> counts = wanted();
  if (counts.empty()) return;
  const int64_t N = product.outputs, K = product.depth, most = counts.back();
  const int64_t copies = std::max<int64_t>(2, lab.turns_past_cache(static_cast<double>(N * K * static_cast<int64_t>(sizeof(T))), kMostCopies) + 1);
  const auto w = random_array<T>(copies * N * K, 1, 0.05f, lab.stream()), x = random_array<T>(most * K, 2, 1.0f, lab.stream());
  const DeviceArray<float> y(most * N), w_scale(std::vector<float>(N, 1.0f), lab.stream()), x_scale(std::vector<float>(most, 1.0f), lab.stream());
  GemmToTune to_tune{{}, product.out};
  for (int64_t i = 0; i < copies; ++i) to_tune.weights.push_back(w.template view<2>({N, K}, i * N * K));
  const std::vector<TunedGemm> tuned = lab.plans().tune(std::span(&to_tune, 1), counts, lab.stream());
  for (size_t i = 0; i < counts.size(); ++i) {
    const int64_t M = counts[i];
    std::vector<Linear> turns(copies);
    for (int64_t copy = 0; copy < copies; ++copy) {
      Linear& op = turns[copy];
      op.x = x.template view<2>({M, K});
      op.w = to_tune.weights[copy];
      if (product.out == DType::f32) op.y = y.template view<2>({M, N});
      else op.y = View<bf16, 2>(reinterpret_cast<bf16*>(y.data()), {M, N});
      op.w_scale = w_scale.flat();
      op.x_scale = x_scale.template view<1>({M});
      op.scaled = false;
    }
    run_tokens(M, turns, tuned[i]);
  }
}

template <class T>
void ProductBench<T>::run_tokens(int64_t tokens, const std::vector<Linear>& turns, const TunedGemm& tuned) {
  const AnyView<2>& y = turns.front().y;
  AnyView<1> output;
  output.data = y.data;
  output.dtype = y.dtype;
  output.shape = {y.shape[0] * y.shape[1]};
  output.stride = {1};
  const Cost cost = linear_cost({.tokens = static_cast<double>(tokens), .outputs = static_cast<double>(product.outputs),
                                 .depth = static_cast<double>(product.depth), .weight_bytes = static_cast<double>(sizeof(T)),
                                 .out_bytes = static_cast<double>(size_of(product.out))});
  const auto launch = [&](int64_t turn) { linear_cuda(turns[turn], lab.stream()); };
  Row row{label(tokens), cost, lab.time({.launch = launch, .turns = static_cast<int64_t>(turns.size()), .output = output}), {}};
  row.note = fmt::format("best of {} algorithms, first {:.1f} us", tuned.candidates, tuned.first_us);
  lab.add(std::move(row));
}

}  // namespace

void measure_products(Lab& lab, const ModelShape& model) {
  for (const Product& product : products_of(model)) {
    ProductBench<bf16>{lab, model, product}.run();
    ProductBench<fp8>{lab, model, product}.run();
  }
}

}  // namespace accrete::launch
