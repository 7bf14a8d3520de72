#include "launch/bench/kernels/step.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "kernels/rope/rope_angles.h"
#include "launch/bench/kernels/random_cache.h"

namespace accrete::launch {
namespace {

DeviceArray<double> inverse_frequencies(Stream& stream) {
  constexpr int64_t kHalf = kBenchHeadSize / 2;
  std::vector<double> values(kHalf);
  for (int64_t i = 0; i < kHalf; ++i) values[i] = std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(kHalf));
  return {values, stream};
}

}  // namespace

Step::Step(const StepKind& kind, Stream& stream) : kind_(kind), cos_(kind.T() * kBenchHeadSize / 2), sin_(cos_.size()) {
  const int64_t B = kind.B(), T = kind.T();
  std::vector<int32_t> row(B), begin(B + 1), position(T), sequence(T);
  std::vector<uint64_t> key(B);
  std::iota(row.begin(), row.end(), 0);
  std::iota(key.begin(), key.end(), uint64_t{1000});
  for (int64_t i = 0; i <= B; ++i) begin[i] = static_cast<int32_t>(std::min(i * kind.tokens, T));
  if (kind.prompt > 0) begin[B] = static_cast<int32_t>(T);
  for (int64_t i = 0; i < B; ++i) {
    for (int32_t t = begin[i]; t < begin[i + 1]; ++t) {
      sequence[t] = static_cast<int32_t>(i);
      position[t] = static_cast<int32_t>(kind.position) + t - begin[i];
    }
  }
  row_ = {row, stream};
  token_begin_ = {begin, stream};
  position_ = {position, stream};
  sequence_ = {sequence, stream};
  key_ = {key, stream};
  const DeviceArray<double> inv_freq = inverse_frequencies(stream);
  constexpr int64_t kHalf = kBenchHeadSize / 2;
  rope_angles_cuda({position_.flat(), inv_freq.flat(), cos_.view<2>({T, kHalf}), sin_.view<2>({T, kHalf})}, stream);
  synchronize(stream);
}

StepBatch Step::batch() const {
  StepBatch batch;
  batch.row = row_.flat();
  batch.token_begin = token_begin_.flat();
  batch.position = position_.flat();
  batch.sequence_key = key_.flat();
  batch.sequence = sequence_.flat();
  batch.decodes = kind_.decode ? kind_.sequences : 0;
  batch.most_tokens = std::max(kind_.tokens, kind_.prompt);
  return batch;
}

}  // namespace accrete::launch
