// Decode attention alone over heads of any lengths, from none to one that every worker of the GPU shares: against float64.
#if defined(ACCRETE_CUDA)

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>

#include "kernels/attention/attention.h"
#include "tests/kernels/op_devices.h"

namespace accrete {
namespace {

constexpr int kPageSlots = 16;

struct Case {
  int64_t kv_heads, group, head_size;
  std::vector<int32_t> slots;  // [B, Hkv]
};

// Pages of all heads in random order, the whole of them random, and what lies behind a head's last slot NaN.
struct Pages {
  explicit Pages(const Case& c) {
    most = *std::max_element(c.slots.begin(), c.slots.end()) / kPageSlots + 1;
    rows.assign(c.slots.size() * most, kNoPage);
    int32_t count = 0;
    for (size_t i = 0; i < c.slots.size(); ++i) {
      for (int32_t p = 0; p * kPageSlots < c.slots[i]; ++p) rows[i * most + p] = count++;
    }
    std::vector<int32_t> order(count);
    std::iota(order.begin(), order.end(), 0);
    std::shuffle(order.begin(), order.end(), random);
    for (int32_t& page : rows) page = page == kNoPage ? kNoPage : order[page];
    values.assign(static_cast<size_t>(std::max(count, 1)) * 2 * kPageSlots * c.head_size, bf16(std::nanf("")));
    for (size_t i = 0; i < c.slots.size(); ++i) fill(c, i);
  }
  void fill(const Case& c, size_t head) {
    std::normal_distribution<float> normal;
    for (int32_t slot = 0; slot < c.slots[head]; ++slot) {
      for (int which = 0; which < 2; ++which) {
        for (int64_t d = 0; d < c.head_size; ++d) values[at(c, head, slot, which) + d] = bf16(normal(random));
      }
    }
  }
  int64_t at(const Case& c, size_t head, int32_t slot, int which) const {
    const int64_t page = rows[head * most + slot / kPageSlots];
    return ((page * 2 + which) * kPageSlots + slot % kPageSlots) * c.head_size;
  }

  std::mt19937 random{3};
  int64_t most = 0;
  std::vector<int32_t> rows;
  std::vector<bf16> values;
};

// One query's output in float64, and the size of what was added.
struct Exact {
  std::vector<double> out, size;
};
Exact exact_of(const Case& c, const Pages& pages, size_t head, const bf16* query) {
  const int32_t slots = c.slots[head];
  std::vector<double> weight(slots);
  for (int32_t s = 0; s < slots; ++s) {
    for (int64_t d = 0; d < c.head_size; ++d) weight[s] += static_cast<double>(static_cast<float>(pages.values[pages.at(c, head, s, 0) + d])) * static_cast<float>(query[d]);
  }
  const double top = *std::max_element(weight.begin(), weight.end());
  double sum = 0;
  for (double& w : weight) sum += w = std::exp((w - top) / std::sqrt(static_cast<double>(c.head_size)));
  Exact exact{std::vector<double>(c.head_size), std::vector<double>(c.head_size)};
  for (int32_t s = 0; s < slots; ++s) {
    for (int64_t d = 0; d < c.head_size; ++d) {
      const double v = static_cast<float>(pages.values[pages.at(c, head, s, 1) + d]);
      exact.out[d] += weight[s] / sum * v;
      exact.size[d] += weight[s] / sum * std::abs(v);
    }
  }
  return exact;
}

std::vector<bf16> attend(const Case& c, const Pages& pages, const std::vector<bf16>& q) {
  CudaDevice cuda;
  const auto H = c.kv_heads, B = static_cast<int64_t>(c.slots.size()) / H, G = c.group, D = c.head_size;
  std::vector<int32_t> rows(B);
  std::iota(rows.begin(), rows.end(), 0);
  const auto on = [](const auto& values) { return CudaDevice::Memory<std::decay_t<decltype(values[0])>>(values); };
  auto d_rows = on(rows), d_slots = on(c.slots), d_page_rows = on(pages.rows);
  auto d_pages = on(pages.values), d_q = on(q), d_out = on(std::vector<bf16>(q.size(), bf16(777.0f))), d_own = on(std::vector<bf16>(B * H * D));
  const DecodePlanShape shape{1, static_cast<int>(H), static_cast<int>(G), static_cast<int>(D), static_cast<int>(B), 132};
  CudaDevice::Memory<char> plan_memory(std::vector<char>(shape.bytes(), 0));
  const DecodePlan plan = decode_plan(shape, plan_memory.data());
  CacheRef cache;
  cache.pages = View<bf16, 4>(d_pages.data(), {static_cast<int64_t>(pages.values.size()) / (2 * kPageSlots * D), 2, kPageSlots, D});
  cache.slots = View<int32_t, 3>(d_slots.data(), {1, B, H});
  cache.page_rows = View<int32_t, 4>(d_page_rows.data(), {1, B, H, pages.most});
  cache.page_slots = kPageSlots;
  StepBatch batch;
  batch.row = View<const int32_t, 1>(d_rows.data(), {B});
  batch.decodes = B;
  plan_decode_cuda(plan, batch, cache, cuda.stream());
  Attention op;
  op.batch = batch;
  op.cache = cache;
  op.q = View<bf16, 3>(d_q.data(), {B, H * G, D});
  op.own_k = View<bf16, 3>(d_own.data(), {B, H, D});
  op.own_v = op.own_k;
  op.out = View<bf16, 3>(d_out.data(), {B, H * G, D});
  op.plan = &plan;
  for (int i = 0; i < 3; ++i) attention_cuda(op, cuda.stream());  // the counters return to zero
  return d_out.read();
}

void check(const Case& c) {
  Pages pages(c);
  std::normal_distribution<float> normal;
  std::vector<bf16> q(c.slots.size() * c.group * c.head_size);
  for (bf16& value : q) value = bf16(normal(pages.random));
  const std::vector<bf16> out = attend(c, pages, q);
  for (size_t row = 0; row < c.slots.size() * c.group; ++row) {
    const size_t head = row / c.group;
    if (c.slots[head] == 0) continue;  // nothing to attend to: left alone
    const Exact exact = exact_of(c, pages, head, &q[row * c.head_size]);
    for (int64_t d = 0; d < c.head_size; ++d) {
      const double bound = 0x1p-8 * (exact.size[d] + std::abs(exact.out[d])) + 1e-4;  // weights and result rounded to bf16
      ASSERT_NEAR(static_cast<float>(out[row * c.head_size + d]), exact.out[d], bound) << "row " << row << " d " << d << " slots " << c.slots[head];
    }
  }
}

class DecodeParts : public testing::Test {
 protected:
  void SetUp() override {
    if (const auto reason = CudaDevice::unavailable()) GTEST_SKIP() << *reason;
  }
};

TEST_F(DecodeParts, OneHeadForAllWorkers) { check({1, 8, 128, {70001}}); }
TEST_F(DecodeParts, OneHeadOfOneQuery) { check({1, 1, 128, {30000}}); }
TEST_F(DecodeParts, OneLongAmongShort) { check({2, 8, 128, {17, 9000, 16, 15, 1, 3, 4096, 0}}); }
TEST_F(DecodeParts, OneLongAmongShortOf64) { check({2, 3, 64, {17, 9000, 16, 15, 1, 3, 4096, 33}}); }
TEST_F(DecodeParts, GroupsOfSixteen) { check({1, 16, 64, {5000, 2, 700}}); }
TEST_F(DecodeParts, ManyShort) {
  Case c{32, 1, 128, std::vector<int32_t>(32 * 40)};
  std::mt19937 random(5);
  for (int32_t& slots : c.slots) slots = std::uniform_int_distribution<int32_t>(1, 200)(random);
  check(c);
}

}  // namespace
}  // namespace accrete

#endif
