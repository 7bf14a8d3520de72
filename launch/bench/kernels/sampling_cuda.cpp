// From logits to tokens, and the log probabilities of given ones.
#include <fmt/format.h>

#include "kernels/sampling/device_sampler.h"
#include "kernels/sampling/join_logits.h"
#include "kernels/sampling/sample_device.h"
#include "launch/bench/kernels/costs.h"
#include "launch/bench/kernels/draws.h"
#include "launch/bench/kernels/lab.h"

namespace accrete::launch {
namespace {

constexpr int64_t kMostTurns = 8;

struct Size {
  int64_t rows, vocab;
  Cost cost() const { return sample_cost(static_cast<double>(rows), static_cast<double>(vocab)); }
};

// The same logits in as many places as keep them out of the level-two cache.
class Logits {
 public:
  Logits(Lab& lab, const Size& size) : size_(size), turns_(lab.turns_past_cache(size.cost().bytes, kMostTurns)) {}

  void draw(Stream& stream) {  // once
    if (values_.size() > 0) return;
    const std::vector<float> drawn = drawn_logits(size_.rows, size_.vocab, 71);
    values_ = DeviceArray<float>(turns_ * static_cast<int64_t>(drawn.size()));
    for (int64_t turn = 0; turn < turns_; ++turn) {
      copy_to_device(values_.data() + turn * static_cast<int64_t>(drawn.size()), drawn.data(), drawn.size() * sizeof(float), stream);
    }
    synchronize(stream);
  }
  int64_t turns() const { return turns_; }
  View<const float, 2> view(int64_t turn) const { return values_.view<2>({size_.rows, size_.vocab}, turn * size_.rows * size_.vocab); }

 private:
  Size size_;
  int64_t turns_;
  DeviceArray<float> values_;
};

struct Method {
  const char* name;
  SamplingParams params;
};

SamplingParams params_of(float temperature, int32_t top_k, float top_p, int32_t logprobs) {
  SamplingParams params;
  params.temperature = temperature;
  params.top_k = top_k;
  params.top_p = top_p;
  params.logprobs = logprobs;
  return params;
}

std::vector<Method> methods() {
  return {{"greedy", params_of(0, 0, 1, -1)},         {"temperature", params_of(1, 0, 1, -1)},
          {"top_p 0.9", params_of(1, 0, 0.9f, -1)},   {"top_k 50", params_of(1, 50, 1, -1)},
          {"top_p 0.9 top_k 50", params_of(1, 50, 0.9f, -1)}, {"greedy 5 logprobs", params_of(0, 0, 1, 5)},
          {"top_p 0.9 5 logprobs", params_of(1, 0, 0.9f, 5)}};
}

// The outputs of n rows.
struct SampleOutputs {
  DeviceArray<int32_t> token, rank, top_tokens;
  DeviceArray<float> logprob, top_logprobs;
  explicit SampleOutputs(int64_t n) : token(n), rank(n), top_tokens(n * kMostTopLogprobs), logprob(n), top_logprobs(n * kMostTopLogprobs) {}
};

std::vector<int32_t> numbers(int64_t count, int32_t first, int32_t step) {
  std::vector<int32_t> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = first + static_cast<int32_t>(i) * step;
  return values;
}

void check_tokens(Lab& lab, const DeviceArray<int32_t>& token, int64_t vocab) {
  std::vector<int32_t> values(token.size());
  copy_to_host(values.data(), token.data(), token.bytes(), lab.stream());
  synchronize(lab.stream());
  for (int32_t value : values) {
    if (value < 0 || value >= vocab) throw std::runtime_error(fmt::format("sampled token {} of a vocabulary of {}", value, vocab));
  }
}

void measure_sample(Lab& lab, const Size& size, Logits& logits, const Method& method) {
  const Label label{"sample", "-", fmt::format("{} x {} {}", size.rows, size.vocab, method.name)};
  if (!lab.wants(label)) return;
  logits.draw(lab.stream());
  const int64_t n = size.rows, V = size.vocab;
  DeviceSamplerTables tables({.rows = n, .vocabulary = V, .edits = 64});
  for (int64_t row = 0; row < n; ++row) {
    SamplingParams params = method.params;
    params.seed = static_cast<uint64_t>(row);
    SamplerStart start;
    start.params = &params;
    tables.start(row, start, lab.stream());
  }
  const DeviceArray<int32_t> state_row(numbers(n, 0, 1), lab.stream()), position(numbers(n, 100, 7), lab.stream());
  const SampleOutputs out(n);
  fill_device(out.token.data(), 0xff, out.token.bytes(), lab.stream());
  const auto launch = [&](int64_t turn) {
    SampleDevice op;
    op.logits = logits.view(turn);
    op.tables = tables.tables();
    op.state_row = state_row.data();
    op.position = position.data();
    op.token = out.token.data();
    op.logprob = out.logprob.data();
    op.rank = out.rank.data();
    op.top_tokens = out.top_tokens.data();
    op.top_logprobs = out.top_logprobs.data();
    sample_cuda(op, lab.stream());
  };
  lab.record(label, size.cost(), {.launch = launch, .turns = logits.turns(), .output = out.logprob.flat()});
  check_tokens(lab, out.token, V);
}

void measure_score(Lab& lab, const Size& size, Logits& logits) {
  const Label label{"score", "-", fmt::format("{} x {} 5 best", size.rows, size.vocab)};
  if (!lab.wants(label)) return;
  logits.draw(lab.stream());
  const int64_t n = size.rows;
  const DeviceArray<int32_t> token(numbers(n, 3, 100), lab.stream()), top(std::vector<int32_t>(n, 5), lab.stream());
  const SampleOutputs out(n);
  const auto launch = [&](int64_t turn) {
    score_cuda({logits.view(turn), token.data(), top.data(), out.token.data(), out.logprob.data(), out.rank.data(),
                out.top_tokens.data(), out.top_logprobs.data()},
               lab.stream());
  };
  lab.record(label, size.cost(), {.launch = launch, .turns = logits.turns(), .output = out.logprob.flat()});
}

// The shards of a vocabulary, as tensor-parallel ranks gather them.
void measure_join(Lab& lab, const Size& size, int64_t shards) {
  const Label label{"join_logits", "-", fmt::format("{} x {} of {} shards", size.rows, size.vocab, shards)};
  if (!lab.wants(label)) return;
  const int64_t n = size.rows, V = size.vocab, width = V / shards;
  const Cost cost = join_logits_cost(static_cast<double>(n), static_cast<double>(V));
  const int64_t turns = lab.turns_past_cache(cost.bytes, kMostTurns);
  const auto parts = random_array<float>(turns * n * V, 1, 2.0f, lab.stream());
  const DeviceArray<float> logits(turns * n * V);
  const auto launch = [&](int64_t turn) {
    JoinLogits op;
    op.parts = parts.view<3>({shards, n, width}, turn * n * V);
    op.logits = logits.view<2>({n, V}, turn * n * V);
    for (int64_t shard = 0; shard <= shards; ++shard) op.begin[shard] = static_cast<int32_t>(shard * width);
    join_logits_cuda(op, lab.stream());
  };
  lab.record(label, cost, {.launch = launch, .turns = turns, .output = logits.flat()});
}

}  // namespace

void measure_sampling(Lab& lab) {
  const std::vector<Size> sizes{{256, 32000}, {64, 128256}, {1, 32000}};
  for (const Size& size : sizes) {
    if (lab.quick() && size.rows == 1) continue;
    Logits logits(lab, size);
    for (const Method& method : methods()) measure_sample(lab, size, logits, method);
    measure_score(lab, size, logits);
    measure_join(lab, size, 8);
  }
}

}  // namespace accrete::launch
