#include "launch/bench/kernels/step.h"

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

Step::Step(const StepKind& kind, Stream& stream) : kind_(kind), cos_(kind.sequences * kind.tokens * kBenchHeadSize / 2), sin_(cos_.size()) {
  const int64_t B = kind.sequences, T = B * kind.tokens;
  std::vector<int32_t> row(B), begin(B + 1), position(T), sequence(T);
  std::vector<uint64_t> key(B);
  std::iota(row.begin(), row.end(), 0);
  std::iota(key.begin(), key.end(), uint64_t{1000});
  for (int64_t i = 0; i <= B; ++i) begin[i] = static_cast<int32_t>(i * kind.tokens);
  for (int64_t t = 0; t < T; ++t) {
    sequence[t] = static_cast<int32_t>(t / kind.tokens);
    position[t] = static_cast<int32_t>(kind.position + t % kind.tokens);
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
  batch.most_tokens = kind_.tokens;
  return batch;
}

}  // namespace accrete::launch
