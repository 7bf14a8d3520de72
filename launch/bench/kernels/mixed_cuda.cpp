// Attention of steps that have decodes and a piece of a prompt, as most steps of a busy server do: the two run side by side, and the note says
// what each takes alone.
#include <fmt/format.h>

#include "kernels/attention/attention.h"
#include "kernels/attention/prompt_share.h"
#include "launch/bench/kernels/costs.h"
#include "launch/bench/kernels/draws.h"
#include "launch/bench/kernels/lab.h"
#include "launch/bench/kernels/plan_memory.h"
#include "launch/bench/kernels/step.h"

namespace accrete::launch {
namespace {

constexpr int64_t kLayers = 2;

struct MixedCase {
  int64_t decodes = 0;
  int64_t slots = 0;    // of a decode's heads, on average
  int64_t tokens = 0;   // of the prompt's piece
  int64_t earlier = 0;  // tokens of the prompt before it, none merged
  std::string shape() const { return fmt::format("B={} slots~{} + T={} behind {}", decodes, slots, tokens, earlier); }
};

// Decodes are the first rows of the caches, the prompt's is the last.
CacheLengths lengths_of(const ModelShape& model, const MixedCase& c) {
  CacheLengths lengths{.layers = kLayers, .rows = c.decodes + 1, .kv_heads = model.kv_heads};
  for (int64_t layer = 0; layer < kLayers; ++layer) {
    const std::vector<int32_t> drawn = spread_lengths({.count = c.decodes * model.kv_heads, .mean = static_cast<double>(c.slots), .ratio = 2.0}, 61 + static_cast<uint64_t>(layer));
    lengths.slots.insert(lengths.slots.end(), drawn.begin(), drawn.end());
    lengths.slots.insert(lengths.slots.end(), static_cast<size_t>(model.kv_heads), static_cast<int32_t>(c.earlier + c.tokens));
  }
  return lengths;
}

// The slot of each token: decodes' are not looked at, the prompt's follow each other.
std::vector<int32_t> slots_of(const ModelShape& model, const MixedCase& c) {
  std::vector<int32_t> slots(static_cast<size_t>(c.decodes * model.kv_heads));
  for (int64_t t = 0; t < c.tokens; ++t) slots.insert(slots.end(), static_cast<size_t>(model.kv_heads), static_cast<int32_t>(c.earlier + t));
  return slots;
}

// Of everything that is read and computed.
Cost cost_of(const ModelShape& model, const MixedCase& c) {
  const double H = static_cast<double>(model.kv_heads), tokens = static_cast<double>(c.tokens), earlier = static_cast<double>(c.earlier);
  const Cost reading = decode_attention_cost(model, static_cast<double>(c.decodes * c.slots) * H);
  const Cost computing = prompt_attention_cost(model, {.earlier = earlier, .tokens = tokens, .slots = (earlier + tokens) * H});
  return {.bytes = reading.bytes + computing.bytes, .flops = reading.flops + computing.flops, .memory = MemoryLimit::read};
}

void measure_case(Lab& lab, const ModelShape& model, const MixedCase& c) {
  const Label label{"mixed_attention", std::string(model.name), c.shape()};
  if (!lab.wants(label)) return;
  const int64_t Q = model.query_heads, H = model.kv_heads, D = model.head_size;
  const RandomCache cache(lengths_of(model, c), lab.pages(), lab.stream());
  const Step step({.sequences = c.decodes, .position = c.earlier, .decode = true, .prompt = c.tokens}, lab.stream());
  const int64_t T = step.tokens();
  const PlanMemory plan({.layers = kLayers, .kv_heads = static_cast<int>(H), .group = static_cast<int>(model.group()), .head_size = static_cast<int>(D),
                         .max_sequences = static_cast<int>(c.decodes), .multiprocessors = lab.device().multiprocessors}, lab.stream());
  StepBatch shared = step.batch();
  shared.prompt_share = prompt_share(plan.plan.shape, {c.decodes * c.slots, {{c.tokens, c.earlier}}});
  const auto q = random_array<bf16>(T * Q * D, 1, 1.0f, lab.stream()), own_k = random_array<bf16>(T * H * D, 2, 1.0f, lab.stream()),
             own_v = random_array<bf16>(T * H * D, 3, 1.0f, lab.stream());
  const DeviceArray<int32_t> own_slot(slots_of(model, c), lab.stream());
  const DeviceArray<bf16> out(T * Q * D);
  Attention op;
  op.cache = cache.ref();
  op.q = q.view<3>({T, Q, D});
  op.own_k = own_k.view<3>({T, H, D});
  op.own_v = own_v.view<3>({T, H, D});
  op.own_slot = own_slot.view<2>({T, H});
  op.out = out.view<3>({T, Q, D});
  op.plan = &plan.plan;
  const auto timed = [&](const StepBatch& batch, const AnyView<1>& output) {
    const auto launch = [&](int64_t layer) {
      Attention mine = op;
      mine.batch = batch;
      mine.layer = static_cast<int>(layer);
      attention_cuda(mine, lab.stream());
    };
    plan_decode_cuda(plan.plan, batch, cache.ref(), lab.stream());
    return lab.time({.launch = launch, .turns = kLayers, .output = output});
  };
  StepBatch decodes = step.batch(), prompt = step.batch();
  decodes.row = decodes.row.rows(0, c.decodes);
  decodes.token_begin = decodes.token_begin.rows(0, c.decodes + 1);
  decodes.position = decodes.position.rows(0, c.decodes);
  const Timing both = timed(shared, out.flat());
  const Timing decodes_alone = timed(decodes, {});
  std::vector<int32_t> row(static_cast<size_t>(c.decodes), -1);  // padding, which takes nothing
  row.push_back(static_cast<int32_t>(c.decodes));
  const DeviceArray<int32_t> prompt_rows(row, lab.stream());
  prompt.row = prompt_rows.flat();
  prompt.decodes = 0;
  const Timing prompt_alone = timed(prompt, {});
  Row result{label, cost_of(model, c), both, {}};
  result.note = fmt::format("alone {:.1f} and {:.1f}; {} multiprocessors for the prompt", decodes_alone.median_us, prompt_alone.median_us, shared.prompt_share);
  lab.add(std::move(result));
}

}  // namespace

void measure_mixed(Lab& lab, const ModelShape& model) {
  // 0.8 GB of a layer's slots.
  const auto decodes = [&](int64_t slots) { return std::max<int64_t>(1, static_cast<int64_t>(8e8 / slot_bytes(model)) / (slots * model.kv_heads)); };
  measure_case(lab, model, {.decodes = decodes(3072), .slots = 3072, .tokens = 64, .earlier = 1024});
  measure_case(lab, model, {.decodes = decodes(20480), .slots = 20480, .tokens = 96, .earlier = 10240});
  if (lab.quick()) return;
  measure_case(lab, model, {.decodes = decodes(1152), .slots = 1152, .tokens = 24, .earlier = 64});
  measure_case(lab, model, {.decodes = decodes(1024) / 4, .slots = 1024, .tokens = 256, .earlier = 512});
  measure_case(lab, model, {.decodes = decodes(3072), .slots = 3072, .tokens = 512, .earlier = 4096});
  measure_case(lab, model, {.decodes = decodes(3072), .slots = 3072, .tokens = 2048, .earlier = 4096});
}

}  // namespace accrete::launch
