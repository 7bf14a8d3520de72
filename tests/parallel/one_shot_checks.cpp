#if defined(ACCRETE_CUDA)
#include "kernels/device/device_graph.h"
#include "parallel/one_shot_limits.h"
#include "tests/parallel/device_checks.h"
#include "tests/parallel/device_data.h"

namespace accrete::parallel {
namespace {

constexpr float kEps = 1e-5f;

// Ranks may be threads of one process, where giving memory back waits for every kernel on the GPU, also for one that waits for this rank.
// Hence all memory is there before the ranks meet, and the first kernel comes after.
void meet(OneShotRig& rig) {
  synchronize(rig.stream);
  rig.ranks.barrier();
}

template <class T>
std::string sum(OneShotRig& rig, size_t count) {
  Findings findings;
  Buffer<T> values(count);
  values.fill([&](size_t i) { return number(count, rig.group.rank(), i); });
  values.upload(rig.stream);
  meet(rig);
  rig.group.all_reduce_sum({View<T, 1>(values.device(), {static_cast<int64_t>(count)}), {}}, rig.stream);
  values.download(rig.stream);
  rig.group.check();
  find_wrong_sums(values, count, rig.group.size(), true, findings);
  findings.add(same_on_all(rig.ranks, values), "ranks hold different bits");
  return findings.first();
}

// x, delta and y of T tokens, with the weight; delta is the rank's own, x everyone's.
template <class T>
struct Layer {
  int64_t tokens, width;
  Buffer<T> x, delta, y;
  Buffer<float> weight;

  Layer(int64_t rows, int64_t columns)
      : tokens(rows), width(columns), x(rows * columns), delta(rows * columns), y(rows * columns), weight(columns) {}
  RmsNorm op() {
    RmsNorm norm;
    norm.x = View<T, 2>(x.device(), {tokens, width});
    norm.delta = View<T, 2>(delta.device(), {tokens, width});
    norm.y = View<T, 2>(y.device(), {tokens, width});
    norm.weight = View<float, 1>(weight.device(), {width});
    norm.eps = kEps;
    return norm;
  }
  static float x_before(uint64_t seed, size_t i) { return static_cast<float>(T(number(seed, 50, i))); }
  void upload(uint64_t seed, int rank, Stream& stream) {
    x.fill([&](size_t i) { return number(seed, 50, i); });
    delta.fill([&](size_t i) { return number(seed, rank, i); });
    y.fill([](size_t) { return 777.0f; });
    weight.fill([](size_t e) { return 1.0f + 0.01f * static_cast<float>(e % 37); });
    for (Buffer<T>* buffer : {&x, &delta, &y}) buffer->upload(stream);
    weight.upload(stream);
  }
  void download(Stream& stream) {
    x.download(stream);
    y.download(stream);
  }
  // The row's x to the bit; y within the roundings of a sum of squares of E terms in chains of at most E / 16 + 16, of the root, and its own.
  void find_wrong_row(int64_t t, uint64_t seed, int ranks, Findings& findings) {
    double squares = 0;
    for (int64_t e = 0; e < width; ++e) {
      const size_t i = t * width + e;
      float sum = 0;
      for (int r = 0; r < ranks; ++r) sum = r == 0 ? static_cast<float>(T(number(seed, r, i))) : sum + static_cast<float>(T(number(seed, r, i)));
      const float expected = static_cast<float>(T(x_before(seed, i) + sum)), got = static_cast<float>(x[i]);
      findings.add(got == expected, fmt::format("x[{}][{}] is {}, expected {}", t, e, got, expected));
      squares += static_cast<double>(expected) * expected;
    }
    const double scale = 1 / std::sqrt(squares / static_cast<double>(width) + kEps);
    const double bound = (static_cast<double>(width) / 32 + 12) * 0x1p-24 * 1.01 + (sizeof(T) == 2 ? 0x1p-8 : 0x1p-24);
    for (int64_t e = 0; e < width; ++e) {
      const size_t i = t * width + e;
      const double expected = static_cast<float>(x[i]) * scale * weight[e];
      findings.add(std::abs(static_cast<float>(y[i]) - expected) <= bound * std::abs(expected),
                   fmt::format("y[{}][{}] is {}, expected {}", t, e, static_cast<float>(y[i]), expected));
    }
  }
  void find_wrong(uint64_t seed, OneShotRig& rig, Findings& findings) {
    for (int64_t t = 0; t < tokens && findings.first().empty(); ++t) find_wrong_row(t, seed, rig.group.size(), findings);
    findings.add(x.guarded() && y.guarded() && delta.guarded(), "wrote beyond its memory");
    findings.add(same_on_all(rig.ranks, x), "ranks hold different bits of x");
    findings.add(same_on_all(rig.ranks, y), "ranks hold different bits of y");
  }
};

template <class T>
std::string norm(OneShotRig& rig, int64_t tokens, int64_t width) {
  Findings findings;
  Layer<T> layer(tokens, width);
  layer.upload(width, rig.group.rank(), rig.stream);
  meet(rig);
  rig.group.all_reduce_norm(layer.op(), rig.stream);
  layer.download(rig.stream);
  rig.group.check();
  layer.find_wrong(width, rig, findings);
  return findings.first();
}

// Hundreds of operations of changing sizes, in two kinds, of which the host waits for one in eight: ranks run ahead of each other.
template <class T>
std::string many(OneShotRig& rig) {
  constexpr size_t kMost = 20'000, kRounds = 400;
  Findings findings;
  Buffer<T> values(kMost);
  Layer<T> layer(7, 576);
  meet(rig);
  for (uint64_t round = 1; round <= kRounds; ++round) {
    const auto count = 1 + static_cast<int64_t>((number(round, 99, 0) + 1) * 0.49 * kMost);
    const View<T, 1> part(values.device(), {count});
    if (round % 8 != 0) {  // the values do not matter here
      rig.group.all_reduce_sum({part, {}}, rig.stream);
      if (round % 3 == 0) rig.group.all_reduce_norm(layer.op(), rig.stream);
      continue;
    }
    values.fill([&](size_t i) { return number(round, rig.group.rank(), i); });
    values.upload(rig.stream);
    rig.group.all_reduce_sum({part, {}}, rig.stream);
    layer.upload(round, rig.group.rank(), rig.stream);
    rig.group.all_reduce_norm(layer.op(), rig.stream);
    values.download(rig.stream);
    layer.download(rig.stream);
    rig.group.check();
    for (int64_t i = 0; i < count; ++i) {
      const float expected = sum_of_numbers<T>(round, rig.group.size(), i).in_order;
      findings.add(static_cast<float>(values[i]) == expected, fmt::format("round {}: element {} of {} is wrong", round, i, count));
    }
    layer.find_wrong(round, rig, findings);
  }
  return findings.first();
}

// Two norms and a sum, an odd number of operations, so that replays begin with either half of the staging memory.
std::string graphs(OneShotRig& rig) {
  constexpr uint64_t kRounds = 200;
  Findings findings;
  Buffer<bf16> values(5000);
  Layer<bf16> first(3, 4096), second(40, 576);
  DeviceGraph graph(rig.stream, [&] {
    rig.group.all_reduce_norm(first.op(), rig.stream);
    rig.group.all_reduce_sum({View<bf16, 1>(values.device(), {5000}), {}}, rig.stream);
    rig.group.all_reduce_norm(second.op(), rig.stream);
  });
  meet(rig);
  for (uint64_t round = 1; round <= kRounds; ++round) {
    values.fill([&](size_t i) { return number(round, rig.group.rank(), i); });
    const auto upload = [&] {
      values.upload(rig.stream);
      first.upload(round, rig.group.rank(), rig.stream);
      second.upload(round + 1000, rig.group.rank(), rig.stream);
    };
    upload();
    graph.launch(rig.stream);
    // Some rounds replay once more before anybody looks; the inputs are copied again in between.
    if (round % 4 == 0) {
      synchronize(rig.stream);
      upload();
      graph.launch(rig.stream);
    }
    values.download(rig.stream);
    first.download(rig.stream);
    second.download(rig.stream);
    rig.group.check();
    if (round % 10 == 0) {
      find_wrong_sums(values, round, rig.group.size(), true, findings);
      first.find_wrong(round, rig, findings);
      second.find_wrong(round + 1000, rig, findings);
    }
  }
  return findings.first();
}

}  // namespace

std::string limits_found(DeviceGroup& group, Communicator& ranks, Stream& stream) {
  constexpr int64_t kWidth = 576, kMost = 4 << 20, kRow = kWidth * static_cast<int64_t>(sizeof(bf16));
  Findings findings;
  const auto one_shot = make_one_shot_group(ranks.split(0, ranks.rank()), {.alone = true});
  const OneShotLimits found = tune_one_shot({*one_shot, group, ranks, kWidth, kMost}, stream);
  std::vector<OneShotLimits> all(ranks.size());
  ranks.all_gather(std::as_bytes(std::span(&found, 1)), std::as_writable_bytes(std::span(all)));
  for (const OneShotLimits& other : all) {
    findings.add(other.sum_bytes == found.sum_bytes && other.norm_bytes == found.norm_bytes, "ranks found different limits");
  }
  for (int64_t bytes : {found.sum_bytes, found.norm_bytes}) {
    findings.add(bytes >= 0 && bytes <= kMost && bytes % kRow == 0, fmt::format("a limit of {} bytes", bytes));
  }
  return findings.first();
}

const std::vector<OneShotCheck>& one_shot_checks() {
  static const std::vector<OneShotCheck> checks = [] {
    std::vector<OneShotCheck> all;
    // The last ones do not fit the staging memory at once.
    for (size_t count : {1, 7, 4096, 12289, 262144, 1048579}) {
      all.push_back({fmt::format("one_shot_sum_f32_{}", count), [count](OneShotRig& rig) { return sum<float>(rig, count); }});
      all.push_back({fmt::format("one_shot_sum_bf16_{}", count), [count](OneShotRig& rig) { return sum<bf16>(rig, count); }});
    }
    for (const auto& [tokens, width] : {std::pair<int64_t, int64_t>{1, 576}, {3, 577}, {1, 4096}, {64, 4096}, {33, 5120}, {130, 8192}, {2, 16384}}) {
      all.push_back({fmt::format("one_shot_norm_f32_{}x{}", tokens, width), [t = tokens, e = width](OneShotRig& rig) { return norm<float>(rig, t, e); }});
      all.push_back({fmt::format("one_shot_norm_bf16_{}x{}", tokens, width), [t = tokens, e = width](OneShotRig& rig) { return norm<bf16>(rig, t, e); }});
    }
    all.push_back({"one_shot_many_f32", many<float>});
    all.push_back({"one_shot_many_bf16", many<bf16>});
    all.push_back({"one_shot_graphs", graphs});
    return all;
  }();
  return checks;
}

}  // namespace accrete::parallel
#endif
