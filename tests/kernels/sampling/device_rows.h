// Rows sampled on the device beside the same rows sampled by sample_cpu, and what rounding allows them to differ by.
#pragma once

#include <algorithm>
#include <cmath>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "kernels/sampling/device_sampler.h"
#include "kernels/sampling/device_weights.h"
#include "kernels/sampling/sampling.h"

namespace accrete {

struct SamplingCase {
  std::vector<float> logits;  // [V]
  SamplingParams params;
  std::vector<int32_t> prompt, generated, forbidden;
  int64_t forbidden_until = INT64_MAX;
  int32_t position = 0;

  std::vector<int32_t> forbidden_now() const { return position < forbidden_until ? forbidden : std::vector<int32_t>{}; }
  std::map<int32_t, int32_t> counts() const {
    std::map<int32_t, int32_t> times;
    for (int32_t token : generated) ++times[token];
    return times;
  }
  SamplerStart start() const { return {&params, forbidden, forbidden_until, prompt, generated}; }
};

inline Sampled sample_on_cpu(const SamplingCase& row) {
  const auto times = row.counts();
  const std::vector<std::pair<int32_t, int32_t>> generated(times.begin(), times.end());
  const std::set<int32_t> distinct(row.prompt.begin(), row.prompt.end());
  const std::vector<int32_t> prompt(distinct.begin(), distinct.end());
  const auto forbidden = row.forbidden_now();
  SampleRequest request;
  request.params = &row.params;
  request.counts = {generated, prompt};
  request.position = static_cast<uint64_t>(row.position);
  request.forbidden = forbidden;
  std::vector<float> logits = row.logits;
  return sample_cpu(request, logits);
}

// The logits after forbidden ids, bias and penalties, rounded as the kernels' contract says.
inline std::vector<float> edited_logits(const SamplingCase& row) {
  std::vector<float> logits = row.logits;
  const auto at = [&](int32_t token) { return token >= 0 && token < static_cast<int64_t>(logits.size()) ? &logits[token] : nullptr; };
  for (int32_t token : row.forbidden_now()) {
    if (float* logit = at(token)) *logit = -std::numeric_limits<float>::infinity();
  }
  for (const auto& [token, bias] : row.params.logit_bias) {
    if (float* logit = at(token)) *logit += bias;
  }
  std::set<int32_t> seen(row.prompt.begin(), row.prompt.end());
  seen.insert(row.generated.begin(), row.generated.end());
  for (int32_t token : seen) {
    float* logit = at(token);
    if (logit) *logit = *logit > 0 ? *logit / row.params.repetition_penalty : *logit * row.params.repetition_penalty;
  }
  for (const auto& [token, times] : row.counts()) {
    const volatile float product = row.params.frequency_penalty * static_cast<float>(times);
    if (float* logit = at(token)) *logit -= product + row.params.presence_penalty;
  }
  return logits;
}

struct Weighed {
  double weight;
  int32_t token;
};

// The draw in exact arithmetic over the kernels' weights, and which tokens it gives when sums are off by at most a share `error`.
class ExactDraw {
 public:
  explicit ExactDraw(const SamplingCase& row) : share_(row.params.top_p) {
    const std::vector<float> logits = edited_logits(row);
    uniform_ = philox_uniform(row.params.seed, static_cast<uint64_t>(row.position));
    std::vector<std::pair<float, int32_t>> order;
    for (size_t i = 0; i < logits.size(); ++i) order.emplace_back(-logits[i], static_cast<int32_t>(i));
    std::sort(order.begin(), order.end());
    const float largest = -order[0].first, inverse = 1.0f / row.params.temperature;
    if (row.params.top_k > 0) order.resize(std::min<size_t>(order.size(), row.params.top_k));
    for (const auto& [negative, token] : order) {
      const float weight = weight_exp((-negative - largest) * inverse);
      if (weight > 0 && weight >= row.params.min_p) best_.push_back({weight, token});
    }
    std::stable_sort(best_.begin(), best_.end(), [](const Weighed& a, const Weighed& b) {
      return a.weight > b.weight || (a.weight == b.weight && a.token < b.token);
    });
    for (const Weighed& each : best_) mass_ += each.weight;
  }

  bool allows(int32_t token, double error) const {
    const size_t least = share_ < 1 ? prefix(share_ - error) : best_.size();
    const size_t most = share_ < 1 ? prefix(share_ + error) : best_.size();
    for (size_t kept = least; kept <= most; ++kept) {
      if (allows_within(kept, token, error)) return true;
    }
    return false;
  }

 private:
  // How many of the best reach that share of the mass.
  size_t prefix(double share) const {
    double sum = 0;
    for (size_t i = 0; i < best_.size(); ++i) {
      sum += best_[i].weight;
      if (sum >= share * mass_) return i + 1;
    }
    return best_.size();
  }
  bool allows_within(size_t kept, int32_t token, double error) const {
    double before = 0, mine = -1, mass = 0;
    for (size_t i = 0; i < kept; ++i) {
      mass += best_[i].weight;
      if (best_[i].token < token) before += best_[i].weight;
      if (best_[i].token == token) mine = best_[i].weight;
    }
    return mine > 0 && uniform_ >= before / mass - error && uniform_ <= (before + mine) / mass + error;
  }

  std::vector<Weighed> best_;
  double mass_ = 0, uniform_ = 0, share_;
};

// Each of V weights is short by less than 2^-44 of the largest, on either side of the boundary and in the whole; a double rounds the
// product with the uniform.
inline double device_error(size_t vocabulary) { return static_cast<double>(vocabulary) * 0x1p-43 + 0x1p-50; }
// sample_cpu's float sums of 512 weights: 31 roundings a lane, 16 lanes, 15 left over; its exponential without FMA: 4e-7. Both in the
// part before the boundary and in the whole.
inline double cpu_error() { return 2 * (62 * 0x1p-24 + 4e-7); }

// Device memory for n rows of [n, V] and a stream: fills, runs, reads back.
struct DeviceRows {
  DeviceRows(int64_t rows, int64_t vocabulary, int64_t edits = 64)
      : rows(rows),
        vocabulary(vocabulary),
        tables({rows, vocabulary, edits}),
        logits(rows * vocabulary * sizeof(float)),
        state_row(rows * sizeof(int32_t)),
        position(rows * sizeof(int32_t)),
        token(rows * sizeof(int32_t)),
        next_ids(rows * sizeof(int32_t)),
        logprob(rows * sizeof(float)),
        rank(rows * sizeof(int32_t)),
        top_tokens(rows * kMostTopLogprobs * sizeof(int32_t)),
        top_logprobs(rows * kMostTopLogprobs * sizeof(float)) {}

  SampleDevice op(int64_t n) const {
    SampleDevice op;
    op.logits = View<const float, 2>(logits.as<float>(), {n, vocabulary});
    op.tables = tables.tables();
    op.state_row = state_row.as<int32_t>();
    op.position = position.as<int32_t>();
    op.token = token.as<int32_t>();
    op.next_ids = next_ids.as<int32_t>();
    op.logprob = logprob.as<float>();
    op.rank = rank.as<int32_t>();
    op.top_tokens = top_tokens.as<int32_t>();
    op.top_logprobs = top_logprobs.as<float>();
    return op;
  }
  template <class T>
  void put(const DeviceMemory& to, const std::vector<T>& values, size_t offset = 0) {
    copy_to_device(to.as<T>() + offset, values.data(), values.size() * sizeof(T), stream.stream());
    synchronize(stream.stream());
  }
  template <class T>
  std::vector<T> get(const DeviceMemory& from, size_t count) {
    std::vector<T> values(count);
    copy_to_host(values.data(), from.as<T>(), count * sizeof(T), stream.stream());
    synchronize(stream.stream());
    return values;
  }
  // Slot i takes row `used[i]` of the tables.
  void put_step(const std::vector<SamplingCase>& cases, const std::vector<int32_t>& used) {
    std::vector<int32_t> positions;
    for (size_t i = 0; i < cases.size(); ++i) {
      put(logits, cases[i].logits, i * vocabulary);
      positions.push_back(cases[i].position);
    }
    put(position, positions);
    put(state_row, used);
  }
  std::vector<Sampled> read(int64_t n) {
    const auto tokens = get<int32_t>(token, n), ranks = get<int32_t>(rank, n);
    const auto logprobs = get<float>(logprob, n), top_scores = get<float>(top_logprobs, n * kMostTopLogprobs);
    const auto top_ids = get<int32_t>(top_tokens, n * kMostTopLogprobs);
    std::vector<Sampled> all(n);
    for (int64_t i = 0; i < n; ++i) {
      all[i] = {tokens[i], logprobs[i], ranks[i], {}};
      for (int64_t j = i * kMostTopLogprobs; j < (i + 1) * kMostTopLogprobs && top_ids[j] >= 0; ++j) {
        all[i].top.push_back({top_ids[j], top_scores[j]});
      }
    }
    return all;
  }
  // Fresh rows of the tables, in reverse order of the slots.
  std::vector<Sampled> sample(const std::vector<SamplingCase>& cases) {
    const int64_t n = static_cast<int64_t>(cases.size());
    std::vector<int32_t> used;
    for (int64_t i = 0; i < n; ++i) {
      used.push_back(static_cast<int32_t>(rows - 1 - i));
      tables.start(used.back(), cases[i].start(), stream.stream());
    }
    put_step(cases, used);
    sample_cuda(op(n), stream.stream());
    return read(n);
  }

  const int64_t rows, vocabulary;
  DeviceStream stream;
  DeviceSamplerTables tables;
  DeviceMemory logits, state_row, position, token, next_ids, logprob, rank, top_tokens, top_logprobs;
};

}  // namespace accrete
