// The references of the one-shot all-reduce: all ranks' parts lie in one process, and their results are written one after another.
#include <vector>

#include "kernels/all_reduce/one_shot.h"

namespace accrete {
namespace {

// sum[i] = ((part_0 + part_1) + part_2) + ...: the kernel's order, hence its bits.
template <class Part>
std::vector<float> sum_over_ranks(size_t ranks, int64_t count, const Part& part) {
  std::vector<float> sum(count);
  for (size_t r = 0; r < ranks; ++r) {
    for (int64_t i = 0; i < count; ++i) {
      const float value = static_cast<float>(part(r, i));
      sum[i] = r == 0 ? value : sum[i] + value;
    }
  }
  return sum;
}

template <class T>
void sum_values(std::span<const OneShotSum> ops) {
  const int64_t count = ops.front().values.shape[0];
  const auto sum = sum_over_ranks(ops.size(), count, [&](size_t r, int64_t i) {
    const Factors& factors = ops[r].factors;
    const T value = ops[r].values.as<T>()(i);
    if (!factors.rows.data) return value;
    const int64_t width = factors.columns.shape[0];
    return static_cast<T>(static_cast<float>(value) * factors.rows(i / width) * factors.columns(i % width));
  });
  for (const OneShotSum& op : ops) {
    for (int64_t i = 0; i < count; ++i) op.values.as<T>()(i) = static_cast<T>(sum[i]);
  }
}

template <class T>
void add_sum(std::span<const RmsNorm> ops) {
  const auto [tokens, width] = ops.front().x.shape;
  const auto sum = sum_over_ranks(ops.size(), tokens * width, [&, columns = width](size_t r, int64_t i) {
    return ops[r].delta.as<T>()(i / columns, i % columns);
  });
  for (const RmsNorm& op : ops) {
    const View<T, 2> x = op.x.as<T>();
    for (int64_t t = 0; t < tokens; ++t) {
      for (int64_t e = 0; e < width; ++e) x(t, e) = static_cast<T>(static_cast<float>(x(t, e)) + sum[t * width + e]);
    }
  }
}

}  // namespace

void one_shot_sum_cpu(std::span<const OneShotSum> ops, Stream&) {
  CHECK(!ops.empty() && ops.size() <= kOneShotRanks, ops.size());
  const AnyView<1>& first = ops[0].values;
  for (const OneShotSum& op : ops) {
    CHECK(op.values.shape == first.shape && op.values.dtype == first.dtype, op.values.shape[0], first.shape[0]);
    if (op.factors.rows.data) CHECK(op.factors.rows.shape[0] * op.factors.columns.shape[0] == first.shape[0], op.factors.rows.shape[0], first.shape[0]);
  }
  if (first.dtype == DType::bf16) return sum_values<bf16>(ops);
  CHECK(first.dtype == DType::f32, name_of(first.dtype));
  sum_values<float>(ops);
}

void one_shot_norm_cpu(std::span<const RmsNorm> ops, Stream& stream) {
  CHECK(!ops.empty() && ops.size() <= kOneShotRanks, ops.size());
  if (ops[0].x.shape[0] == 0) return;
  for (const RmsNorm& op : ops) {
    CHECK(op.delta.data && op.delta.shape == op.x.shape && op.delta.dtype == op.x.dtype, op.delta.shape[0], op.x.shape[0]);
    CHECK(op.x.shape == ops[0].x.shape && op.x.dtype == ops[0].x.dtype, op.x.shape[0], ops[0].x.shape[0]);
  }
  if (ops[0].x.dtype == DType::bf16) add_sum<bf16>(ops);
  else add_sum<float>(ops);
  for (RmsNorm op : ops) {
    op.delta = {};
    rms_norm_cpu(op, stream);
  }
}

}  // namespace accrete
