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
void sum_values(std::span<const AnyView<1>> values) {
  const int64_t count = values.front().shape[0];
  const auto sum = sum_over_ranks(values.size(), count, [&](size_t r, int64_t i) { return values[r].as<T>()(i); });
  for (const AnyView<1>& rank : values) {
    for (int64_t i = 0; i < count; ++i) rank.as<T>()(i) = static_cast<T>(sum[i]);
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

void one_shot_sum_cpu(std::span<const AnyView<1>> values, Stream&) {
  CHECK(!values.empty() && values.size() <= kOneShotRanks, values.size());
  for (const AnyView<1>& rank : values) CHECK(rank.shape == values[0].shape && rank.dtype == values[0].dtype, rank.shape[0], values[0].shape[0]);
  if (values[0].dtype == DType::bf16) return sum_values<bf16>(values);
  CHECK(values[0].dtype == DType::f32, name_of(values[0].dtype));
  sum_values<float>(values);
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
