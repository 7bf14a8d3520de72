#include "tests/kernels/dmc/cuda_rig.h"

#if defined(ACCRETE_CUDA)

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "kernels/device/device_graph.h"
#include "kernels/device/device_memory.h"
#include "kernels/rope/rope_angles.h"

namespace accrete {
namespace {

double bf16_error(double x) { return std::abs(x) * 0x1p-8 + 1e-6; }  // rounding to bf16, with sums in another order before it

// Where a step's tensors lie, of the host or of the GPU.
template <class T>
struct Places {
  T* qkv;
  float *cos, *sin;
  T *q, *own_k, *own_v;
  int32_t* own_slot;
};

template <class T>
DmcUpdate update_of(const RigModel& m, const DmcParams& dmc, int64_t tokens, const Places<T>& at) {
  DmcUpdate op;
  op.dmc = dmc;
  op.layer = Rig::kLayer;
  op.qkv = View<T, 2>(at.qkv, {tokens, m.width()});
  op.cos = View<const float, 2>(at.cos, {tokens, m.head_size / 2});
  op.sin = View<const float, 2>(at.sin, {tokens, m.head_size / 2});
  op.q = View<T, 3>(at.q, {tokens, m.query_heads(), m.head_size});
  op.own_k = View<T, 3>(at.own_k, {tokens, m.kv_heads, m.head_size});
  op.own_v = View<T, 3>(at.own_v, {tokens, m.kv_heads, m.head_size});
  op.own_slot = View<int32_t, 2>(at.own_slot, {tokens, m.kv_heads});
  return op;
}

// The slots of a head as the GPU's tables hold them: element d of key (which 0) or value (1).
struct HeadSlots {
  const std::vector<bf16>& pages;
  const int32_t* ids;
  int64_t page_slots, size;
  bf16 element(int which, int64_t slot, int64_t d) const { return pages[((ids[slot / page_slots] * 2 + which) * page_slots + slot % page_slots) * size + d]; }
  double at(int which, int64_t slot, int64_t d) const { return static_cast<float>(element(which, slot, d)); }
};

// What a query attends to: the closed slots, and in prompts the token's own entry behind them.
struct Attended {
  HeadSlots slots;
  int64_t closed;
  const bf16 *own_k, *own_v;  // null: none
  int64_t count() const { return closed + (own_k ? 1 : 0); }
  double at(int which, int64_t slot, int64_t d) const { return slot < closed ? slots.at(which, slot, d) : static_cast<float>((which == 0 ? own_k : own_v)[d]); }
};

// Softmax of q . K / sqrt(D), in float64.
std::vector<double> attention_weights(const Attended& attended, const bf16* query) {
  const int64_t size = attended.slots.size;
  std::vector<double> weights(attended.count(), 0.0);
  for (int64_t j = 0; j < attended.count(); ++j) {
    for (int64_t d = 0; d < size; ++d) weights[j] += attended.at(0, j, d) * static_cast<float>(query[d]);
  }
  const double top = *std::max_element(weights.begin(), weights.end());
  double sum = 0;
  for (double& x : weights) sum += x = std::exp((x - top) / std::sqrt(static_cast<double>(size)));
  for (double& x : weights) x /= sum;
  return weights;
}

// out = softmax(q K) V. Weights are rounded to bf16 before they meet the values, and the result once more; the rest is fp32.
void check_query(const Attended& attended, const bf16* query, const bf16* out) {
  const std::vector<double> weights = attention_weights(attended, query);
  for (int64_t d = 0; d < attended.slots.size; ++d) {
    double exact = 0, size = 0;
    for (size_t j = 0; j < weights.size(); ++j) {
      const double v = attended.at(1, static_cast<int64_t>(j), d);
      exact += weights[j] * v;
      size += weights[j] * std::abs(v);
    }
    ASSERT_NEAR(static_cast<float>(out[d]), exact, 0x1p-8 * (size + std::abs(exact)) + 1e-4) << "d " << d << " slots " << attended.closed;
  }
}

void check_near(const std::vector<bf16>& got, const std::vector<float>& expected, size_t first, double slack) {
  for (size_t i = first; i < expected.size(); ++i) ASSERT_NEAR(static_cast<float>(got[i]), expected[i], bf16_error(expected[i]) + slack) << "element " << i;
}

// Whether a token's attention is checked: of long prompts the first and last ones and some between, at places of any remainder.
bool checked(int32_t token, int32_t tokens) { return token < 200 || token > tokens - 150 || token % 37 == 0; }

}  // namespace

Rig::Rig(const RigModel& m)
    : model_(m), tables_({2, kRows, m.kv_heads, m.head_size, m.max_pages, m.pages, m.page_slots, m.window, DType::f32}), gpu_(tables_), next_(kRows, 0) {
  dmc_.mode = m.mode;
  dmc_.window = m.window;
  dmc_.bf16_decision = true;
  dmc_.synthetic_cr = 4.0;
  dmc_.model_layers = 2;
  dmc_.model_kv_heads = static_cast<int>(m.kv_heads);
  for (int64_t h = 0; h < m.kv_heads; ++h) rates_.push_back(synthetic_rate(dmc_, kLayer, static_cast<int>(h)));
  for (int64_t i = 0; i < m.head_size / 2; ++i) inv_freq_.push_back(std::pow(10000.0, -2.0 * static_cast<double>(i) / static_cast<double>(m.head_size)));
  const DecodePlanShape shape{2, static_cast<int>(m.kv_heads), static_cast<int>(m.group), static_cast<int>(m.head_size), 2 * kRows, 132};
  plan_memory_.emplace(std::vector<char>(shape.bytes(), 0));
  plan_ = decode_plan(shape, plan_memory_->data());
}

void Rig::add_sequence(Input& input, int32_t row, int32_t tokens) {
  const auto s = static_cast<int32_t>(input.sequences());
  input.row.push_back(row);
  input.key.push_back(1000 + row);
  for (int32_t i = 0; i < tokens; ++i) {
    input.position.push_back(row < 0 ? 1 : next_[row]++);
    input.sequence.push_back(s);
  }
  input.begin.push_back(static_cast<int32_t>(input.tokens()));
  const bool decode = tokens == 1 && input.position.back() > 0;
  if (decode && input.decodes == s) ++input.decodes;
  else input.most = std::max<int64_t>(input.most, tokens);
}

// Values that bf16 holds, drawn token by token; learned decision neurons accumulate about three times in four, importance neurons are near
// the sigmoid's middle.
void Rig::add_random_qkv(Input& input) {
  std::normal_distribution<float> normal;
  const auto drawn = [&](float mean, float deviation) { return static_cast<float>(bf16(mean + deviation * normal(random_))); };
  const int64_t size = model_.head_size, heads = model_.query_heads() + 2 * model_.kv_heads;
  for (int64_t head = 0; head < input.tokens() * heads; ++head) {
    for (int64_t d = 0; d < size - 1; ++d) input.qkv.push_back(drawn(0, 1));
    const bool importance = model_.mode == DmcMode::learned && head % heads < model_.query_heads();
    input.qkv.push_back(importance ? drawn(-5, 1) : drawn(6.8f, 3));
  }
}

Rig::Input Rig::make_input(const RigStep& step, int padding) {
  Input input;
  for (const auto& [row, tokens] : step) add_sequence(input, row, tokens);
  for (int i = 0; i < padding; ++i) add_sequence(input, -1, 1);
  input.padding = padding;
  add_random_qkv(input);
  const int64_t tokens = input.tokens(), half = model_.head_size / 2;
  input.cos.resize(tokens * half);
  input.sin.resize(tokens * half);
  rope_angles_cpu({View<const int32_t, 1>(input.position.data(), {tokens}), View<const double, 1>(inv_freq_.data(), {half}),
                   View<float, 2>(input.cos.data(), {tokens, half}), View<float, 2>(input.sin.data(), {tokens, half})},
                  cpu_.stream());
  return input;
}

void Rig::run_host(const Input& input) {
  const int64_t tokens = input.tokens() - input.padding, sequences = input.sequences() - input.padding, kv = tokens * model_.kv_heads;
  std::vector<float> qkv = input.qkv, cos = input.cos, sin = input.sin;
  expected_.q.assign(tokens * model_.query_heads() * model_.head_size, 0);
  expected_.own_k.assign(kv * model_.head_size, 0);
  expected_.own_v = expected_.own_k;
  expected_.own_slot.assign(kv, -5);
  DmcUpdate op = update_of<float>(model_, dmc_, tokens, {qkv.data(), cos.data(), sin.data(), expected_.q.data(), expected_.own_k.data(), expected_.own_v.data(), expected_.own_slot.data()});
  op.cache = tables_.ref();
  op.batch.row = View<const int32_t, 1>(input.row.data(), {sequences});
  op.batch.token_begin = View<const int32_t, 1>(input.begin.data(), {sequences + 1});
  op.batch.position = View<const int32_t, 1>(input.position.data(), {tokens});
  op.batch.sequence_key = View<const uint64_t, 1>(input.key.data(), {sequences});
  dmc_update_cpu(op, cpu_.stream());
}

void Rig::run_gpu(const Input& input) {
  const int64_t T = input.tokens(), B = input.sequences(), H = model_.kv_heads, Q = model_.query_heads(), D = model_.head_size, words = (T + 31) / 32;
  const bf16 never(777.0f);
  Memory<bf16> qkv(std::vector<bf16>(input.qkv.begin(), input.qkv.end()));
  Memory<bf16> q(std::vector<bf16>(T * Q * D, never)), k(std::vector<bf16>(T * H * D, never)), v(std::vector<bf16>(T * H * D, never)), out(std::vector<bf16>(T * Q * D, never));
  Memory<float> cos(input.cos), sin(input.sin), weight(std::vector<float>(H * T));
  Memory<int32_t> row(input.row), begin(input.begin), position(input.position), sequence(input.sequence);
  Memory<int32_t> slot(std::vector<int32_t>(T * H, -5)), appends(std::vector<int32_t>(H * 2 * words, 0x55555555));
  Memory<uint64_t> key(input.key);
  Memory<double> rates(rates_);
  DmcUpdate op = update_of<bf16>(model_, dmc_, T, {qkv.data(), cos.data(), sin.data(), q.data(), k.data(), v.data(), slot.data()});
  op.cache = gpu_.ref();
  op.batch = {View<const int32_t, 1>(row.data(), {B}), View<const int32_t, 1>(begin.data(), {B + 1}), View<const int32_t, 1>(position.data(), {T}),
              View<const uint64_t, 1>(key.data(), {B}), View<const int32_t, 1>(sequence.data(), {T}), input.decodes, input.most};
  op.synthetic_rates = View<const double, 1>(rates.data(), {H});
  op.weight = View<float, 2>(weight.data(), {H, T});
  op.appends = View<int32_t, 3>(appends.data(), {H, 2, words});
  Attention attention{op.batch, op.cache, kLayer, op.q, op.own_k, op.own_v, op.own_slot, View<bf16, 3>(out.data(), {T, Q, D}), &plan_};
  got_.attended.clear();
  for (const int share : shares_of(input)) {
    attention.batch.prompt_share = share;
    const auto enqueue = [&] {
      plan_decode_cuda(plan_, attention.batch, op.cache, cuda_.stream());
      fill_device(out.data(), 0xff, T * Q * D * sizeof(bf16), cuda_.stream());
      if (got_.attended.empty()) dmc_update_cuda(op, cuda_.stream());
      if (D <= 128) attention_cuda(attention, cuda_.stream());
    };
    DeviceGraph graph;
    if (captured_) (graph = DeviceGraph(cuda_.stream(), enqueue)).launch(cuda_.stream());
    else enqueue();
    got_.attended.push_back(out.read());
  }
  got_.q = q.read();
  got_.own_k = k.read();
  got_.own_v = v.read();
  got_.own_slot = slot.read();
}

// Of the 132 multiprocessors that the plan knows of; each step that has both kinds begins with another one, and does the others again.
std::vector<int> Rig::shares_of(const Input& input) {
  if (input.decodes == 0 || input.decodes == input.sequences()) return {0};
  std::vector<int> shares{1, 40, 0, 131};
  std::rotate(shares.begin(), shares.begin() + mixed_steps_++ % 4, shares.end());
  return shares;
}

void Rig::run(const RigStep& step, int padding) {
  const Input input = make_input(step, padding);
  run_host(input);
  run_gpu(input);
  if (gpu_.exhausted()) return;
  check_update(input);
  check_tables();
  if (model_.head_size > 128) return;
  for (const std::vector<bf16>& attended : got_.attended) check_attention(input, attended);
}

void Rig::check_update(const Input& input) {
  check_near(got_.q, expected_.q, 0, 0);
  got_.own_slot.resize(expected_.own_slot.size());
  ASSERT_EQ(got_.own_slot, expected_.own_slot);
  const size_t first_own = std::min<size_t>(input.decodes * model_.kv_heads * model_.head_size, expected_.own_k.size());
  check_near(got_.own_k, expected_.own_k, first_own, 1e-5);
  check_near(got_.own_v, expected_.own_v, first_own, 1e-5);
}

void Rig::check_tables() {
  ASSERT_EQ(gpu_.slots(), tables_.slots);
  if (model_.mode != DmcMode::off) ASSERT_EQ(gpu_.segment(), tables_.segment);
  ASSERT_EQ(gpu_.taken(), tables_.take);
  const std::vector<uint16_t> got = entries();
  size_t i = 0;
  for (size_t head = 0; head < tables_.slots.size(); ++head) {
    const int32_t* ids = tables_.page_rows.data() + head * model_.max_pages;
    for (int64_t at = 0; at < tables_.slots[head] * 2 * model_.head_size; ++at, ++i) {
      const int64_t slot = at / (2 * model_.head_size), which = at / model_.head_size % 2, d = at % model_.head_size, S = model_.page_slots;
      const float expected = tables_.f32[((ids[slot / S] * 2 + which) * S + slot % S) * model_.head_size + d];
      bf16 value;
      value.bits = got[i];
      ASSERT_NEAR(static_cast<float>(value), expected, bf16_error(expected) + 1e-5) << "head " << head << " slot " << slot << " " << which;
    }
  }
}

std::vector<uint16_t> Rig::entries() {
  const auto pages = gpu_.pages();
  const auto ids = gpu_.page_rows(), counts = gpu_.slots();
  std::vector<uint16_t> bits;
  for (size_t head = 0; head < counts.size(); ++head) {
    const HeadSlots slots{pages, ids.data() + head * model_.max_pages, model_.page_slots, model_.head_size};
    for (int64_t at = 0; at < counts[head] * 2 * model_.head_size; ++at) {
      bits.push_back(slots.element(static_cast<int>(at / model_.head_size % 2), at / (2 * model_.head_size), at % model_.head_size).bits);
    }
  }
  return bits;
}

void Rig::check_attention(const Input& input, const std::vector<bf16>& attended) {
  const int64_t H = model_.kv_heads, D = model_.head_size, G = model_.group;
  const auto pages = gpu_.pages();
  const auto ids = gpu_.page_rows();
  for (int64_t i = 0; i < (input.tokens() - input.padding) * H * G; ++i) {
    const int64_t t = i / (H * G), head = i / G, s = input.sequence[t];
    const int64_t table = (kLayer * kRows + input.row[s]) * H + head % H;
    if (!checked(static_cast<int32_t>(t) - input.begin[s], input.begin[s + 1] - input.begin[s])) continue;
    const bool decode = s < input.decodes;
    const HeadSlots slots{pages, ids.data() + table * model_.max_pages, model_.page_slots, D};
    const bf16 *own_k = decode ? nullptr : &got_.own_k[head * D], *own_v = decode ? nullptr : &got_.own_v[head * D];
    check_query({slots, got_.own_slot[head] + (decode ? 1 : 0), own_k, own_v}, &got_.q[i * D], &attended[i * D]);
    if (testing::Test::HasFatalFailure()) FAIL() << "sequence " << s << " token " << t << " KV head " << head % H << " query " << i % G;
  }
  for (size_t i = (input.tokens() - input.padding) * H * G * D; i < attended.size(); ++i) ASSERT_EQ(attended[i].bits, 0xffff) << "padding " << i;
}

}  // namespace accrete

#endif
