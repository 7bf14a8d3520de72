// Prompt attention over caches compressed at several ratios. Rates count the FLOPs of usual causal attention, so that what compression
// saves shows as a higher rate.
#include <fmt/format.h>

#include <cmath>
#include <numeric>

#include "kernels/attention/attention.h"
#include "launch/bench/kernels/costs.h"
#include "launch/bench/kernels/draws.h"
#include "launch/bench/kernels/lab.h"
#include "launch/bench/kernels/plan_memory.h"
#include "launch/bench/kernels/step.h"

namespace accrete::launch {
namespace {

constexpr int64_t kLayers = 2;

struct PromptCase {
  int64_t tokens = 4096;   // of each sequence
  int64_t earlier = 0;     // in the caches when the chunk comes
  int64_t sequences = 1;
  std::string shape(double cr) const {
    if (sequences > 1) return fmt::format("{} x T={} CR={:g}", sequences, tokens, cr);
    return earlier == 0 ? fmt::format("T={} CR={:g}", tokens, cr) : fmt::format("T={} behind {} CR={:g}", tokens, earlier, cr);
  }
};

// Slots of every head before the chunk and the slot of every token of it; all sequences have the same.
struct DrawnSlots {
  std::vector<int32_t> tokens;  // [T, Hkv]
  std::vector<int32_t> after;   // [B, Hkv] slots of each head at the end

  DrawnSlots(const ModelShape& model, const PromptCase& c, double cr) {
    const std::vector<double> rates = accumulate_rates(model.kv_heads, cr);
    std::vector<int32_t> before;
    for (double rate : rates) before.push_back(static_cast<int32_t>(std::lround(static_cast<double>(c.earlier) * (1 - rate))));
    tokens = slots_of_tokens(drawn_decisions(c.tokens, rates, 51), before);
    for (size_t i = tokens.size() - rates.size(); i < tokens.size(); ++i) after.push_back(tokens[i] + 1);
    const std::vector<int32_t> one_tokens = tokens, one_after = after;
    for (int64_t i = 1; i < c.sequences; ++i) {
      tokens.insert(tokens.end(), one_tokens.begin(), one_tokens.end());
      after.insert(after.end(), one_after.begin(), one_after.end());
    }
  }
};

// Microseconds; 0 when the filter does not want it. `plain_us`: of the same at CR 1, 0 when it was not measured.
double measure_case(Lab& lab, const ModelShape& model, const PromptCase& c, double cr, double plain_us) {
  const Label label{"prompt_attention", std::string(model.name), c.shape(cr)};
  if (!lab.wants(label)) return 0;
  const int64_t B = c.sequences, T = B * c.tokens, Q = model.query_heads, H = model.kv_heads, D = model.head_size;
  const DrawnSlots drawn(model, c, cr);
  CacheLengths lengths{.layers = kLayers, .rows = B, .kv_heads = H};
  for (int64_t layer = 0; layer < kLayers; ++layer) lengths.slots.insert(lengths.slots.end(), drawn.after.begin(), drawn.after.end());
  const RandomCache cache(lengths, lab.pages(), lab.stream());
  const Step step({.sequences = B, .tokens = c.tokens, .position = c.earlier}, lab.stream());
  const PlanMemory plan({.layers = kLayers, .kv_heads = static_cast<int>(H), .group = static_cast<int>(model.group()), .head_size = static_cast<int>(D),
                         .max_sequences = 1, .multiprocessors = lab.device().multiprocessors}, lab.stream());
  const auto q = random_array<bf16>(T * Q * D, 1, 1.0f, lab.stream()), own_k = random_array<bf16>(T * H * D, 2, 1.0f, lab.stream()),
             own_v = random_array<bf16>(T * H * D, 3, 1.0f, lab.stream());
  const DeviceArray<int32_t> own_slot(drawn.tokens, lab.stream());
  const DeviceArray<bf16> out(T * Q * D);
  Attention op;
  op.batch = step.batch();
  op.cache = cache.ref();
  op.q = q.view<3>({T, Q, D});
  op.own_k = own_k.view<3>({T, H, D});
  op.own_v = own_v.view<3>({T, H, D});
  op.own_slot = own_slot.view<2>({T, H});
  op.out = out.view<3>({T, Q, D});
  op.plan = &plan.plan;
  const auto launch = [&](int64_t layer) {
    Attention mine = op;
    mine.layer = static_cast<int>(layer);
    attention_cuda(mine, lab.stream());
  };
  const double slots = static_cast<double>(std::accumulate(drawn.after.begin(), drawn.after.end(), int64_t{0}));
  const Cost cost = prompt_attention_cost(model, {.earlier = static_cast<double>(c.earlier), .tokens = static_cast<double>(c.tokens), .slots = slots / static_cast<double>(B)})
                        .times(static_cast<double>(B));
  Row row{label, cost, lab.time({.launch = launch, .turns = kLayers, .output = out.flat()}), {}};
  if (plain_us > 0) row.note = fmt::format("{:.2f} x CR 1", plain_us / row.timing.median_us);
  return lab.add(std::move(row)).timing.median_us;
}

}  // namespace

void measure_prompt(Lab& lab, const ModelShape& model) {
  const std::vector<double> ratios = lab.quick() ? std::vector<double>{1, 4} : std::vector<double>{1, 2, 4, 8};
  std::vector<PromptCase> cases{{.tokens = 4096}};
  if (!lab.quick()) cases.push_back({.tokens = 16384});
  cases.push_back({.tokens = 2048, .earlier = 14336});
  cases.push_back({.tokens = 128, .sequences = 32});
  for (const PromptCase& c : cases) {
    double plain_us = 0;
    for (double cr : ratios) {
      const double us = measure_case(lab, model, c, cr, plain_us);
      if (cr == 1) plain_us = us;
    }
  }
}

}  // namespace accrete::launch
