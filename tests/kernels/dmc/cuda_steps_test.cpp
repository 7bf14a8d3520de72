// dmc_update_cuda against dmc_update_cpu over steps of prompts, chunks and decodes, and attention_cuda against float64 over the pages and
// queries that the GPU itself holds: so each op answers for its own roundings alone.
#if defined(ACCRETE_CUDA)

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "kernels/attention/attention.h"
#include "kernels/dmc/dmc_update.h"
#include "kernels/rope/rope_angles.h"
#include "tests/kernels/dmc/device_tables.h"

namespace accrete {
namespace {

struct Model {
  int64_t kv_heads, group, head_size;
  DmcMode mode;
  int window = 12;
  int page_slots = 16;
  int64_t pages = 4000;
  int64_t max_pages = 40;
};

using Step = std::vector<std::pair<int32_t, int32_t>>;  // (row, tokens); decodes first, padding, whose row is -1, last

class CudaSteps : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto reason = CudaDevice::unavailable()) GTEST_SKIP() << *reason;
  }
};

constexpr float kUnwritten = 776.0f;  // that bf16 holds

double bf16_error(double x) { return std::abs(x) * 0x1p-8 + 1e-6; }  // rounding to bf16, with sums in another order before it

// The slots of a head as the GPU's tables hold them: element d of key (which 0) or value (1).
struct HeadSlots {
  const std::vector<bf16>& pages;
  const int32_t* ids;
  int64_t page_slots, size;
  double at(int which, int64_t slot, int64_t d) const {
    return static_cast<float>(pages[((ids[slot / page_slots] * 2 + which) * page_slots + slot % page_slots) * size + d]);
  }
};

class Rig {
 public:
  static constexpr int kRows = 6;
  explicit Rig(const Model& m)
      : model(m), tables({2, kRows, m.kv_heads, m.head_size, m.max_pages, m.pages, m.page_slots, m.window, DType::f32}), gpu(tables), next(kRows, 0) {
    dmc.mode = m.mode;
    dmc.window = m.window;
    dmc.bf16_decision = true;
    dmc.synthetic_cr = 4.0;
    dmc.model_layers = 2;
    dmc.model_kv_heads = static_cast<int>(m.kv_heads);
    for (int64_t h = 0; h < m.kv_heads && m.mode == DmcMode::synthetic; ++h) rates.push_back(synthetic_rate(dmc, kLayer, static_cast<int>(h)));
    for (int64_t i = 0; i < m.head_size / 2; ++i) inv_freq.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(m.head_size)));
    if (rates.empty()) rates.push_back(0);
    DecodePlanShape shape{2, static_cast<int>(m.kv_heads), static_cast<int>(m.group), static_cast<int>(m.head_size), kRows, 132};
    plan_memory.emplace(std::vector<char>(shape.bytes(), 0));
    plan = decode_plan(shape, plan_memory->data());
  }

  void run(const Step& step);

  static constexpr int kLayer = 1;
  Model model;
  DmcParams dmc;
  CacheTables tables;
  DeviceTables gpu;
  std::vector<int32_t> next;  // position of each row's next token
  std::vector<double> rates, inv_freq;
  std::optional<CudaDevice::Memory<char>> plan_memory;
  DecodePlan plan;
  CpuDevice cpu;
  CudaDevice cuda;
  std::mt19937 random{7};

 private:
  struct Batch {
    std::vector<int32_t> row, begin{0}, position, sequence;
    std::vector<uint64_t> key;
    int64_t decodes = 0, most = 0;
    int64_t sequences = 0;  // but for padding
    int64_t tokens() const { return begin[sequences]; }
  };
  struct Inputs {
    std::vector<float> qkv, cos, sin;
  };
  Batch make_batch(const Step& step);
  std::vector<float> random_qkv(int64_t tokens);
  void run_cpu(const Batch& batch, Inputs& inputs);
  void run_gpu(const Batch& batch, const Inputs& inputs);
  void check_update(const Batch& batch);
  void check_attention(const Batch& batch);
  void check_head(const Batch& batch, int64_t sequence, int64_t h, const HeadSlots& slots);

  // Of the last step.
  std::vector<float> q, own_k, own_v;
  std::vector<int32_t> own_slot;
  std::vector<bf16> gpu_q, gpu_k, gpu_v, gpu_out;
  std::vector<int32_t> gpu_slot;
};

Rig::Batch Rig::make_batch(const Step& step) {
  Batch b;
  for (const auto& [row, tokens] : step) {
    const auto s = static_cast<int32_t>(b.row.size());
    b.row.push_back(row);
    b.key.push_back(1000 + row);
    for (int32_t i = 0; i < tokens; ++i) {
      b.position.push_back(row < 0 ? i : next[row]++);
      b.sequence.push_back(s);
    }
    b.begin.push_back(static_cast<int32_t>(b.position.size()));
    if (row >= 0) ++b.sequences;
    const bool decode = tokens == 1 && b.position.back() > 0;
    if (decode && b.decodes == s) ++b.decodes;
    else b.most = std::max<int64_t>(b.most, tokens);
  }
  return b;
}

// Values that bf16 holds; learned decision neurons accumulate about three times in four.
std::vector<float> Rig::random_qkv(int64_t tokens) {
  const int64_t heads = model.kv_heads * (model.group + 2);
  std::vector<float> values(tokens * heads * model.head_size);
  std::normal_distribution<float> normal;
  for (float& value : values) value = static_cast<float>(bf16(normal(random)));
  for (int64_t i = 0; i < tokens * heads; ++i) values[(i + 1) * model.head_size - 1] = static_cast<float>(bf16(5.0f + 3.0f * (normal(random) + 0.6f)));
  if (model.mode != DmcMode::learned) return values;
  for (int64_t t = 0; t < tokens; ++t) {  // importance near the sigmoid's middle
    for (int64_t h = 0; h < model.kv_heads * model.group; ++h) values[(t * heads + h + 1) * model.head_size - 1] = static_cast<float>(bf16(-5.0f + normal(random)));
  }
  return values;
}

void Rig::run(const Step& step) {
  const Batch b = make_batch(step);
  const int64_t T = b.position.size(), D = model.head_size;
  Inputs inputs{random_qkv(T), std::vector<float>(T * D / 2), std::vector<float>(T * D / 2)};
  rope_angles_cpu({View<const int32_t, 1>(b.position.data(), {T}), View<const double, 1>(inv_freq.data(), {D / 2}), View<float, 2>(inputs.cos.data(), {T, D / 2}),
                   View<float, 2>(inputs.sin.data(), {T, D / 2})},
                  cpu.stream());
  run_cpu(b, inputs);
  run_gpu(b, inputs);
  if (gpu.exhausted()) return;
  check_update(b);
  check_attention(b);
}

// The update alone, without the padding.
void Rig::run_cpu(const Batch& b, Inputs& inputs) {
  const int64_t all = b.position.size(), B = b.sequences, T = b.tokens(), H = model.kv_heads, Q = H * model.group, D = model.head_size;
  q.assign(all * Q * D, 0), own_k.assign(all * H * D, 0), own_v = own_k, own_slot.assign(all * H, -5);
  DmcUpdate op;
  op.dmc = dmc;
  op.layer = kLayer;
  op.cache = tables.ref();
  op.batch.row = View<const int32_t, 1>(b.row.data(), {B});
  op.batch.token_begin = View<const int32_t, 1>(b.begin.data(), {B + 1});
  op.batch.position = View<const int32_t, 1>(b.position.data(), {T});
  op.batch.sequence_key = View<const uint64_t, 1>(b.key.data(), {B});
  op.qkv = View<float, 2>(inputs.qkv.data(), {T, (Q + 2 * H) * D});
  op.cos = View<const float, 2>(inputs.cos.data(), {T, D / 2});
  op.sin = View<const float, 2>(inputs.sin.data(), {T, D / 2});
  op.q = View<float, 3>(q.data(), {T, Q, D});
  op.own_k = View<float, 3>(own_k.data(), {T, H, D});
  op.own_v = View<float, 3>(own_v.data(), {T, H, D});
  op.own_slot = View<int32_t, 2>(own_slot.data(), {T, H});
  dmc_update_cpu(op, cpu.stream());
}

void Rig::run_gpu(const Batch& b, const Inputs& inputs) {
  const int64_t T = b.position.size(), B = b.row.size(), H = model.kv_heads, Q = H * model.group, D = model.head_size;
  const auto on = [](const auto& values) { return CudaDevice::Memory<std::decay_t<decltype(values[0])>>(values); };
  auto d_row = on(b.row), d_begin = on(b.begin), d_position = on(b.position), d_sequence = on(b.sequence);
  auto d_key = on(b.key);
  auto d_cos = on(inputs.cos), d_sin = on(inputs.sin), d_weight = on(std::vector<float>(T * H));
  auto d_rates = on(rates);
  auto d_age = on(std::vector<int32_t>(T * H)), d_slot = on(std::vector<int32_t>(T * H, -5));
  auto d_qkv = on(std::vector<bf16>(inputs.qkv.begin(), inputs.qkv.end())), d_q = on(std::vector<bf16>(T * Q * D)), d_k = on(std::vector<bf16>(T * H * D)),
       d_v = on(std::vector<bf16>(T * H * D)), d_out = on(std::vector<bf16>(T * Q * D, bf16(kUnwritten)));
  DmcUpdate op;
  op.dmc = dmc;
  op.layer = kLayer;
  op.cache = gpu.ref();
  op.batch = {View<const int32_t, 1>(d_row.data(), {B}), View<const int32_t, 1>(d_begin.data(), {B + 1}), View<const int32_t, 1>(d_position.data(), {T}),
              View<const uint64_t, 1>(d_key.data(), {B}), View<const int32_t, 1>(d_sequence.data(), {T}), b.decodes, b.most};
  op.qkv = View<bf16, 2>(d_qkv.data(), {T, (Q + 2 * H) * D});
  op.cos = View<const float, 2>(d_cos.data(), {T, D / 2});
  op.sin = View<const float, 2>(d_sin.data(), {T, D / 2});
  op.q = View<bf16, 3>(d_q.data(), {T, Q, D});
  op.own_k = View<bf16, 3>(d_k.data(), {T, H, D});
  op.own_v = View<bf16, 3>(d_v.data(), {T, H, D});
  op.own_slot = View<int32_t, 2>(d_slot.data(), {T, H});
  op.synthetic_rates = View<const double, 1>(d_rates.data(), {H});
  op.weight = View<float, 2>(d_weight.data(), {T, H});
  op.age = View<int32_t, 2>(d_age.data(), {T, H});
  plan_decode_cuda(plan, op.batch, op.cache, cuda.stream());
  dmc_update_cuda(op, cuda.stream());
  attention_cuda({op.batch, op.cache, kLayer, op.q, op.own_k, op.own_v, op.own_slot, View<bf16, 3>(d_out.data(), {T, Q, D}), &plan}, cuda.stream());
  gpu_q = d_q.read(), gpu_k = d_k.read(), gpu_v = d_v.read(), gpu_out = d_out.read(), gpu_slot = d_slot.read();
}

void Rig::check_update(const Batch& b) {
  const int64_t H = model.kv_heads, D = model.head_size, first_own = b.decodes * H * D, tokens = b.tokens(), end_own = tokens * H * D;
  for (int64_t i = 0; i < tokens * H * model.group * D; ++i) ASSERT_NEAR(static_cast<float>(gpu_q[i]), q[i], bf16_error(q[i])) << "q " << i;
  ASSERT_EQ(gpu_slot, own_slot);
  for (int64_t i = first_own; i < end_own; ++i) {
    ASSERT_NEAR(static_cast<float>(gpu_k[i]), own_k[i], bf16_error(own_k[i]) + 1e-5) << "own_k " << i;
    ASSERT_NEAR(static_cast<float>(gpu_v[i]), own_v[i], bf16_error(own_v[i]) + 1e-5) << "own_v " << i;
  }
  ASSERT_EQ(gpu.slots(), tables.slots);
  if (model.mode != DmcMode::off) ASSERT_EQ(gpu.segment(), tables.segment);
  ASSERT_EQ(gpu.taken(), tables.take);
  const auto pages = gpu.pages();
  const auto ids = gpu.page_rows();
  for (int64_t head = 0; head < 2 * kRows * H; ++head) {
    const HeadSlots slots{pages, ids.data() + head * tables.shape.max_pages, model.page_slots, D};
    const int32_t* cpu_ids = tables.page_rows.data() + head * tables.shape.max_pages;
    for (int64_t s = 0; s < tables.slots[head]; ++s) {
      for (int which = 0; which < 2; ++which) {
        const float* expected = &tables.f32[((cpu_ids[s / model.page_slots] * 2 + which) * model.page_slots + s % model.page_slots) * D];
        for (int64_t d = 0; d < D; ++d) ASSERT_NEAR(slots.at(which, s, d), expected[d], bf16_error(expected[d]) + 1e-5) << "head " << head << " slot " << s << " " << which;
      }
    }
  }
}

// To the next token that is checked: of long prompts the first and last ones and some between, at places of any remainder.
int32_t checked_step(int32_t token, int32_t tokens) { return token < 200 || token > tokens - 150 ? 1 : 37; }

// What a query sees, as the GPU holds it: closed slots and, in prompts, behind them the token's own entry.
struct Seen {
  const HeadSlots& slots;
  int64_t closed;
  const bf16* own[2];  // key and value [D]; null in decodes
  int64_t count() const { return closed + (own[0] ? 1 : 0); }
  double at(int which, int64_t j, int64_t d) const { return j < closed ? slots.at(which, j, d) : static_cast<double>(static_cast<float>(own[which][d])); }
};

// softmax(q K / sqrt(D)) in float64.
std::vector<double> exact_weights(const Seen& seen, const bf16* query) {
  const int64_t D = seen.slots.size;
  std::vector<double> weights(seen.count(), 0.0);
  for (int64_t j = 0; j < seen.count(); ++j) {
    for (int64_t d = 0; d < D; ++d) weights[j] += seen.at(0, j, d) * static_cast<float>(query[d]);
  }
  const double top = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& x : weights) sum += x = std::exp((x - top) / std::sqrt(static_cast<double>(D)));
  for (double& x : weights) x /= sum;
  return weights;
}

// Weights are rounded to bf16 before they meet the values, and the result once more, each by 2^-9 of itself at most; the rest is fp32, with
// twice that allowed for all together.
void check_row(const Seen& seen, const bf16* query, const bf16* out, const std::string& where) {
  const std::vector<double> weights = exact_weights(seen, query);
  for (int64_t d = 0; d < seen.slots.size; ++d) {
    double exact = 0, size = 0;
    for (int64_t j = 0; j < seen.count(); ++j) {
      exact += weights[j] * seen.at(1, j, d);
      size += weights[j] * std::abs(seen.at(1, j, d));
    }
    ASSERT_NEAR(static_cast<float>(out[d]), exact, 0x1p-8 * (size + std::abs(exact)) + 1e-4) << where << " d " << d << " slots " << seen.closed;
  }
}

void Rig::check_head(const Batch& b, int64_t s, int64_t h, const HeadSlots& slots) {
  const int64_t H = model.kv_heads, D = model.head_size, G = model.group;
  const int32_t begin = b.begin[s], end = b.begin[s + 1];
  const bool decode = s < b.decodes;  // its open slot is in its page
  for (int32_t t = begin; t < end; t += checked_step(t - begin, end - begin)) {
    const int64_t own = t * H + h;
    Seen seen{slots, gpu_slot[own] + (decode ? 1 : 0), {nullptr, nullptr}};
    if (!decode) seen.own[0] = &gpu_k[own * D], seen.own[1] = &gpu_v[own * D];
    for (int64_t g = 0; g < G && !testing::Test::HasFatalFailure(); ++g) {
      check_row(seen, &gpu_q[(own * G + g) * D], &gpu_out[(own * G + g) * D], fmt::format("sequence {} token {} KV head {} query {}", s, t, h, g));
    }
  }
}

void Rig::check_attention(const Batch& b) {
  const int64_t H = model.kv_heads;
  const auto pages = gpu.pages();
  const auto ids = gpu.page_rows();
  for (int64_t i = 0; i < b.sequences * H; ++i) {
    const int64_t s = i / H, head = (kLayer * kRows + b.row[s]) * H + i % H;
    check_head(b, s, i % H, {pages, ids.data() + head * tables.shape.max_pages, model.page_slots, model.head_size});
  }
  for (size_t i = b.tokens() * H * model.group * model.head_size; i < gpu_out.size(); ++i) ASSERT_EQ(static_cast<float>(gpu_out[i]), kUnwritten) << "padding " << i;
}

// Prompts of many lengths together, chunks, decodes beside a chunk, decodes alone.
void run_steps(const Model& model) {
  Rig rig(model);
  rig.run({{0, 37}, {1, 1}, {2, 300}});
  rig.run({{0, 1}, {2, 5}, {3, 129}});
  for (int i = 0; i < 4; ++i) rig.run({{0, 1}, {1, 1}, {2, 1}, {3, 1}});
  rig.run({{1, 1}, {3, 1}, {0, 20}, {5, 260}, {-1, 70}});
  for (int i = 0; i < 20; ++i) rig.run({{5, 1}, {0, 1}, {2, 1}});
  EXPECT_FALSE(rig.gpu.exhausted());
}

TEST_F(CudaSteps, LearnedHeads128) { run_steps({2, 1, 128, DmcMode::learned}); }
TEST_F(CudaSteps, LearnedHeads64Groups3) { run_steps({3, 3, 64, DmcMode::learned}); }
TEST_F(CudaSteps, LearnedGroups8) { run_steps({1, 8, 128, DmcMode::learned}); }
TEST_F(CudaSteps, LearnedGroups16) { run_steps({1, 16, 64, DmcMode::learned}); }
TEST_F(CudaSteps, LearnedWithoutWindow) { run_steps({2, 2, 128, DmcMode::learned, 0}); }
TEST_F(CudaSteps, Synthetic) { run_steps({4, 4, 128, DmcMode::synthetic}); }
TEST_F(CudaSteps, PlainLlama) { run_steps({2, 4, 128, DmcMode::off}); }
TEST_F(CudaSteps, PagesOf64Slots) { run_steps({2, 2, 64, DmcMode::learned, 12, 64}); }

// A long prompt beside short ones, then chunk after chunk behind it.
void run_long(Model model, int32_t tokens) {
  model.pages = model.kv_heads * (2 * (tokens + 1600) / model.page_slots) + 100;
  model.max_pages = (2 * tokens + 1000) / model.page_slots;
  Rig rig(model);
  rig.run({{0, 7}, {1, tokens}, {2, 130}});
  rig.run({{2, 1}, {1, 1}, {0, 127}});
  rig.run({{0, 64}, {1, 129}, {3, 1}});
  rig.run({{1, 513}, {3, 200}});
  EXPECT_FALSE(rig.gpu.exhausted());
}

TEST_F(CudaSteps, LongLearned128) { run_long({2, 1, 128, DmcMode::learned}, 4500); }
TEST_F(CudaSteps, LongLearnedGroups8PagesOf32) { run_long({1, 8, 128, DmcMode::learned, 12, 32}, 1700); }
TEST_F(CudaSteps, LongLearned64Groups3) { run_long({2, 3, 64, DmcMode::learned}, 2100); }
TEST_F(CudaSteps, LongLearned64PagesOf64) { run_long({2, 1, 64, DmcMode::learned, 12, 64}, 4100); }
TEST_F(CudaSteps, LongPlain128PagesOf64) { run_long({1, 2, 128, DmcMode::off, 12, 64}, 1600); }
TEST_F(CudaSteps, LongPlainGroups16) { run_long({1, 16, 128, DmcMode::off}, 500); }
TEST_F(CudaSteps, LongSynthetic64PagesOf32) { run_long({3, 2, 64, DmcMode::synthetic, 12, 32}, 3000); }

// More (sequence, KV head) pairs than prompt attention sorts by length, and a group that does not divide its rows.
TEST_F(CudaSteps, ManyHeads) {
  Rig rig({50, 5, 64, DmcMode::synthetic, 12, 16, 8000});
  rig.run({{0, 30}, {1, 41}, {2, 55}, {3, 1}, {4, 2}, {5, 17}});
  rig.run({{3, 1}, {0, 29}, {1, 3}, {2, 2}, {4, 90}, {5, 1}});
  EXPECT_FALSE(rig.gpu.exhausted());
}

// A pool that runs dry is flagged, and every page is still owned once or free.
TEST_F(CudaSteps, PoolRunsDry) {
  Rig rig({2, 1, 128, DmcMode::off, 12, 16, 5});
  rig.run({{0, 100}});
  EXPECT_TRUE(rig.gpu.exhausted());
  EXPECT_LE(rig.gpu.taken(), 5u);
  Rig longer({2, 1, 128, DmcMode::off, 12, 16, 5, 20});  // than its row of the page table, too
  longer.run({{0, 900}});
  EXPECT_TRUE(longer.gpu.exhausted());
  Rig decode({2, 1, 128, DmcMode::off, 12, 16, 5});
  decode.run({{0, 20}});
  ASSERT_FALSE(decode.gpu.exhausted());
  for (int i = 0; i < 30; ++i) decode.run({{0, 1}});
  EXPECT_TRUE(decode.gpu.exhausted());
  EXPECT_EQ(decode.gpu.taken(), 5u);
  std::vector<int> owners(5, 0);
  for (int32_t page : decode.gpu.page_rows()) {
    if (page != kNoPage) ++owners[page];
  }
  for (int count : owners) EXPECT_LE(count, 1);
}

}  // namespace
}  // namespace accrete

#endif
