// Decode attention and its plan over caches whose heads differ in length. What counts is the share of the memory's speed at which slots are
// read, whatever their distribution over heads, sequences and pages.
#include <fmt/format.h>

#include <algorithm>

#include "kernels/attention/attention.h"
#include "launch/bench/kernels/costs.h"
#include "launch/bench/kernels/draws.h"
#include "launch/bench/kernels/lab.h"
#include "launch/bench/kernels/plan_memory.h"
#include "launch/bench/kernels/step.h"

namespace accrete::launch {
namespace {

constexpr double kLarge = 1.074e9, kMiddle = 100e6, kSmall = 20e6;  // bytes of a layer's slots
constexpr double kRotated = 512e6;                                  // bytes of all layers that take turns, at least
constexpr int64_t kMostLayers = 32;
constexpr int64_t kUsualContext = 4096;                              // slots: longer ones should read as fast
constexpr double kLongHead = 100.0;  // times the others' length

struct DecodeCase {
  std::string name;
  int64_t sequences = 0;
  double mean_slots = 0;  // of a head
  double ratio = 8.0;     // of the longest head to the shortest
  bool long_head = false; // one of a layer's heads is kLongHead times as long as the others on average
  int64_t context = 0;    // of the sweep over lengths; 0: another case
};

int64_t sequences_of(const ModelShape& model) { return model.kv_heads >= 32 ? 64 : model.kv_heads >= 8 ? 128 : 256; }

DecodeCase sized_case(const ModelShape& model, double bytes, int64_t sequences) {
  const double slots = bytes / slot_bytes(model) / static_cast<double>(sequences * model.kv_heads);
  return {fmt::format("{:.0f}MB 8:1 B={} slots~{:.0f}", bytes * 1e-6, sequences, slots), sequences, slots};
}

DecodeCase context_case(const ModelShape& model, int64_t slots) {
  const double heads = kLarge / slot_bytes(model) / static_cast<double>(slots);
  const int64_t sequences = std::max<int64_t>(1, static_cast<int64_t>(heads / static_cast<double>(model.kv_heads) + 0.5));
  return {fmt::format("context {}k B={}", slots / 1024, sequences), sequences, static_cast<double>(slots), 1.25, false, slots};
}

std::vector<DecodeCase> cases_of(const ModelShape& model, bool quick) {
  const int64_t sequences = sequences_of(model);
  std::vector<DecodeCase> cases{sized_case(model, kLarge, sequences), sized_case(model, kMiddle, sequences / 4), sized_case(model, kSmall, sequences / 8)};
  for (int64_t slots : quick ? std::vector<int64_t>{4096, 32768} : std::vector<int64_t>{1024, 2048, 4096, 8192, 16384, 32768, 65536}) {
    cases.push_back(context_case(model, slots));
  }
  cases.push_back({fmt::format("one head x{:.0f} B={} slots~512", kLongHead, sequences / 2), sequences / 2, 512, 8.0, true});
  if (!quick) cases.push_back({"one sequence B=1 slots~4096", 1, 4096, 2.0});
  return cases;
}

CacheLengths lengths_of(const ModelShape& model, const DecodeCase& c) {
  const int64_t heads = c.sequences * model.kv_heads;
  const double bytes = c.mean_slots * static_cast<double>(heads) * slot_bytes(model);
  const int64_t layers = std::clamp<int64_t>(static_cast<int64_t>(kRotated / bytes) + 1, 2, kMostLayers);
  CacheLengths lengths{.layers = layers, .rows = c.sequences, .kv_heads = model.kv_heads};
  for (int64_t layer = 0; layer < layers; ++layer) {
    std::vector<int32_t> drawn = spread_lengths({.count = heads, .mean = c.mean_slots, .ratio = c.ratio}, 31 + static_cast<uint64_t>(layer));
    if (c.long_head) drawn[heads / 3] = static_cast<int32_t>(c.mean_slots * kLongHead);
    lengths.slots.insert(lengths.slots.end(), drawn.begin(), drawn.end());
  }
  return lengths;
}

DecodePlanShape plan_shape(const Lab& lab, const ModelShape& model, int64_t layers, int64_t sequences) {
  return {.layers = static_cast<int>(layers), .kv_heads = static_cast<int>(model.kv_heads), .group = static_cast<int>(model.group()),
          .head_size = static_cast<int>(model.head_size), .max_sequences = static_cast<int>(sequences),
          .multiprocessors = lab.device().multiprocessors};
}

// GB/s of slots; 0 when the filter does not want it. `usual`: GB/s of another case to compare with, 0: none.
double measure_attention(Lab& lab, const ModelShape& model, const DecodeCase& c, double usual) {
  const Label label{"decode_attention", std::string(model.name), c.name};
  if (!lab.wants(label)) return 0;
  const int64_t B = c.sequences, Q = model.query_heads, H = model.kv_heads, D = model.head_size;
  const CacheLengths lengths = lengths_of(model, c);
  const RandomCache cache(lengths, lab.pages(), lab.stream());
  const Step step({.sequences = B, .position = 4000, .decode = true}, lab.stream());
  PlanMemory plan(plan_shape(lab, model, lengths.layers, B), lab.stream());
  plan_decode_cuda(plan.plan, step.batch(), cache.ref(), lab.stream());
  const auto q = random_array<bf16>(B * Q * D, 1, 1.0f, lab.stream()), own = random_array<bf16>(B * H * D, 2, 1.0f, lab.stream());
  const DeviceArray<int32_t> own_slot(B * H);  // of own entries: decode reads neither, it takes the open slot from its page
  const DeviceArray<bf16> out(B * Q * D);
  Attention op;
  op.batch = step.batch();
  op.cache = cache.ref();
  op.q = q.view<3>({B, Q, D});
  op.own_k = op.own_v = own.view<3>({B, H, D});
  op.own_slot = own_slot.view<2>({B, H});
  op.out = out.view<3>({B, Q, D});
  op.plan = &plan.plan;
  const auto launch = [&](int64_t layer) {
    Attention mine = op;
    mine.layer = static_cast<int>(layer);
    attention_cuda(mine, lab.stream());
  };
  const double slots = static_cast<double>(lengths.total_slots()) / static_cast<double>(lengths.layers);
  Row row{label, decode_attention_cost(model, slots), lab.time({.launch = launch, .turns = lengths.layers, .output = out.flat()}), {}};
  if (usual > 0) row.note = fmt::format("{:.2f} x context {}k", row.gb_s() / usual, kUsualContext / 1024);
  return lab.add(std::move(row)).gb_s();
}

// Of all layers, as it is made once a step. It reads a count of every head and writes a prefix.
void measure_plan(Lab& lab, const ModelShape& model, int64_t sequences) {
  const Label label{"plan_decode", std::string(model.name), fmt::format("L={} B={}", model.layers, sequences)};
  if (!lab.wants(label)) return;
  const int64_t L = model.layers, B = sequences, H = model.kv_heads;
  const DeviceArray<int32_t> slots(spread_lengths({.count = L * B * H, .mean = 512}, 41), lab.stream());
  CacheRef cache;
  cache.slots = slots.view<3>({L, B, H});
  const Step step({.sequences = B, .position = 4000, .decode = true}, lab.stream());
  const PlanMemory plan(plan_shape(lab, model, L, B), lab.stream());
  const auto launch = [&](int64_t) { plan_decode_cuda(plan.plan, step.batch(), cache, lab.stream()); };
  const double items = static_cast<double>(plan.plan.shape.items(static_cast<int>(B))), workers = plan.plan.shape.workers();
  lab.record(label, {.bytes = kWord * static_cast<double>(L) * (static_cast<double>(B * H) + items + workers)}, {.launch = launch});
}

}  // namespace

void measure_decode(Lab& lab, const ModelShape& model) {
  for (int64_t sequences : lab.quick() ? std::vector<int64_t>{64} : std::vector<int64_t>{1, 64, 256}) measure_plan(lab, model, sequences);
  double usual = 0;
  for (const DecodeCase& c : cases_of(model, lab.quick())) {
    const double gb_s = measure_attention(lab, model, c, c.context > kUsualContext ? usual : 0);
    if (c.context == kUsualContext) usual = gb_s;
  }
}

}  // namespace accrete::launch
