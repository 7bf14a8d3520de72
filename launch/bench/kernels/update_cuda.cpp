// The cache update: decode steps, where its bytes are those of the window, and prompts. Decisions are the learned kind, drawn unevenly over
// heads, and every replay starts from the same caches, so that each launch takes the pages that one step takes.
#include <fmt/format.h>

#include <algorithm>

#include "kernels/dmc/dmc_update.h"
#include "launch/bench/kernels/costs.h"
#include "launch/bench/kernels/draws.h"
#include "launch/bench/kernels/lab.h"
#include "launch/bench/kernels/step.h"

namespace accrete::launch {
namespace {

constexpr int32_t kWindow = 12;
constexpr int64_t kPromptLayers = 2;
constexpr int64_t kLeastLayers = 8;  // of a graph of decode updates, whose start must be nothing beside them
constexpr int64_t kMostLayers = 32;
constexpr int64_t kDrawnTokens = 1024;  // of a prompt; longer ones repeat them
constexpr int64_t kDecodeSlots = 128;   // mean of a head: where the update writes, it reads none

DmcParams learned() {
  DmcParams dmc;
  dmc.mode = DmcMode::learned;
  dmc.window = kWindow;
  dmc.bf16_decision = true;
  return dmc;
}

// What an update reads and writes beside the cache.
struct UpdateBuffers {
  const ModelShape& model;
  DeviceArray<bf16> qkv, q, own_k, own_v;
  DeviceArray<int32_t> own_slot, appends;
  DeviceArray<float> weight;

  UpdateBuffers(const ModelShape& m, int64_t tokens)
      : model(m),
        qkv(tokens * m.qkv_width()),
        q(tokens * m.query_heads * m.head_size),
        own_k(tokens * m.kv_heads * m.head_size),
        own_v(tokens * m.kv_heads * m.head_size),
        own_slot(tokens * m.kv_heads),
        appends(m.kv_heads * 2 * ((tokens + 31) / 32)),
        weight(tokens * m.kv_heads) {}

  // Rows of qkv from those drawn, repeated until all have been filled.
  void fill(const std::vector<bf16>& rows, Stream& stream) {
    const size_t bytes = rows.size() * sizeof(bf16);
    copy_to_device(qkv.data(), rows.data(), bytes, stream);
    for (size_t at = bytes; at < qkv.bytes(); at += bytes) {
      copy_on_device(reinterpret_cast<std::byte*>(qkv.data()) + at, qkv.data(), std::min(bytes, qkv.bytes() - at), stream);
    }
    synchronize(stream);
  }
  DmcUpdate op(const Step& step, const CacheRef& cache, int layer) const {
    const int64_t T = step.tokens(), Q = model.query_heads, H = model.kv_heads, D = model.head_size;
    DmcUpdate op;
    op.dmc = learned();
    op.batch = step.batch();
    op.cache = cache;
    op.layer = layer;
    op.qkv = qkv.view<2>({T, model.qkv_width()});
    op.cos = step.cos();
    op.sin = step.sin();
    op.q = q.view<3>({T, Q, D});
    op.own_k = own_k.view<3>({T, H, D});
    op.own_v = own_v.view<3>({T, H, D});
    op.own_slot = own_slot.view<2>({T, H});
    op.weight = weight.view<2>({H, T});
    op.appends = appends.view<3>({H, 2, (T + 31) / 32});
    return op;
  }
};

// Tokens in every open segment when heads accumulate at these rates: the age of a sequence that has run for long.
std::vector<int32_t> drawn_segments(int64_t heads, std::span<const double> rates) {
  Draws draws(21);
  std::vector<int32_t> segments(heads);
  for (int64_t i = 0; i < heads; ++i) {
    const double rate = rates[i % static_cast<int64_t>(rates.size())];
    segments[i] = 1;
    while (segments[i] < 1000 && draws.unit() < rate) ++segments[i];
  }
  return segments;
}

double ring_reads(std::span<const int32_t> segments, std::span<const uint8_t> decisions) {
  double reads = 0;
  for (size_t i = 0; i < segments.size(); ++i) reads += decisions[i % decisions.size()] ? std::min(segments[i], kWindow - 1) : 0;
  return reads;
}

void measure_decode_update(Lab& lab, const ModelShape& model, int64_t batch, double cr) {
  const Label label{"dmc_update", std::string(model.name), fmt::format("decode B={} CR={:g} W={}", batch, cr, kWindow)};
  if (!lab.wants(label)) return;
  const int64_t H = model.kv_heads, each_layer = batch * H;
  const double ring_bytes = static_cast<double>(each_layer * kWindow) * slot_bytes(model);
  const int64_t layers = std::max(kLeastLayers, lab.turns_past_cache(ring_bytes, kMostLayers));
  const std::vector<double> rates = accumulate_rates(H, cr);
  const std::vector<uint8_t> decisions = drawn_decisions(batch, rates, 22);
  CacheLengths lengths{.layers = layers, .rows = batch, .kv_heads = H};
  lengths.slots = spread_lengths({.count = lengths.heads(), .mean = kDecodeSlots}, 23);
  lengths.segment = drawn_segments(lengths.heads(), rates);
  lengths.spare_slots = 1;
  lengths.window = kWindow;
  RandomCache cache(lengths, lab.pages(), lab.stream());
  const Step step({.sequences = batch, .position = 2000, .decode = true}, lab.stream());
  UpdateBuffers buffers(model, batch);
  buffers.fill(drawn_qkv(model, learned(), decisions), lab.stream());
  const double heads = static_cast<double>(each_layer);
  const UpdateSize size{.tokens = static_cast<double>(batch), .ring_reads = ring_reads(lengths.segment, decisions) / static_cast<double>(layers),
                        .ring_writes = heads, .slot_writes = heads};
  const auto launch = [&](int64_t layer) { dmc_update_cuda(buffers.op(step, cache.ref(), static_cast<int>(layer)), lab.stream()); };
  const auto reset = [&] { cache.reset(lab.stream()); };
  lab.record(label, update_cost(model, size), {.launch = launch, .turns = layers, .reset = reset, .output = buffers.q.flat()});
  cache.check_enough_pages(lab.stream());
}

void measure_prompt_update(Lab& lab, const ModelShape& model, const StepKind& kind, double cr) {
  const int64_t tokens = kind.sequences * kind.tokens;
  const std::string many = kind.sequences > 1 ? fmt::format("B={} ", kind.sequences) : "";
  const Label label{"dmc_update", std::string(model.name), fmt::format("prompt {}T={} CR={:g} W={}", many, kind.tokens, cr, kWindow)};
  if (!lab.wants(label)) return;
  const int64_t H = model.kv_heads;
  const std::vector<uint8_t> decisions = drawn_decisions(std::min(tokens, kDrawnTokens), accumulate_rates(H, cr), 24);
  CacheLengths lengths{.layers = kPromptLayers, .rows = kind.sequences, .kv_heads = H};
  lengths.slots.assign(lengths.heads(), 0);
  lengths.segment.assign(lengths.heads(), 0);
  lengths.spare_slots = kind.tokens;
  lengths.window = kWindow;
  RandomCache cache(lengths, lab.pages(), lab.stream());
  const Step step(kind, lab.stream());
  UpdateBuffers buffers(model, tokens);
  buffers.fill(drawn_qkv(model, learned(), decisions), lab.stream());
  const double appends = static_cast<double>(std::count(decisions.begin(), decisions.end(), 0)) / static_cast<double>(decisions.size());
  const UpdateSize size{.tokens = static_cast<double>(tokens), .ring_writes = static_cast<double>(kind.sequences * H * kWindow),
                        .slot_writes = appends * static_cast<double>(tokens * H), .own_entries = true};
  const auto launch = [&](int64_t layer) { dmc_update_cuda(buffers.op(step, cache.ref(), static_cast<int>(layer)), lab.stream()); };
  const auto reset = [&] { cache.reset(lab.stream()); };
  lab.record(label, update_cost(model, size), {.launch = launch, .turns = kPromptLayers, .reset = reset, .output = buffers.own_v.flat()});
  cache.check_enough_pages(lab.stream());
}

}  // namespace

void measure_update(Lab& lab, const ModelShape& model) {
  const std::vector<int64_t> batches = lab.quick() ? std::vector<int64_t>{16, 256} : std::vector<int64_t>{1, 16, 64, 256};
  const std::vector<double> ratios = lab.quick() ? std::vector<double>{4} : std::vector<double>{1, 4, 8};
  for (int64_t batch : batches) {
    for (double cr : ratios) measure_decode_update(lab, model, batch, cr);
  }
  std::vector<StepKind> prompts{{.sequences = 1, .tokens = 4096}};
  if (!lab.quick()) prompts.insert(prompts.end(), {{.sequences = 1, .tokens = 16384}, {.sequences = 64, .tokens = 256}});
  for (const StepKind& prompt : prompts) {
    for (double cr : ratios) measure_prompt_update(lab, model, prompt, cr);
  }
}

}  // namespace accrete::launch
