#if defined(ACCRETE_CUDA)
#include "tests/parallel/device_checks.h"

#include "kernels/device/device_graph.h"
#include "tests/parallel/device_data.h"

namespace accrete::parallel {
namespace {

constexpr int kRounds = 100;

template <class T>
AnyView<1> view(Buffer<T>& buffer) {
  return View<T, 1>(buffer.device(), {static_cast<int64_t>(buffer.count())});
}

template <class T>
std::string sum(DeviceRig& rig, size_t count) {
  Findings findings;
  Buffer<T> values(count);
  values.fill([&](size_t i) { return number(count, rig.group.rank(), i); });
  values.upload(rig.stream);
  rig.group.all_reduce_sum(view(values), rig.stream);
  values.download(rig.stream);
  rig.group.check();
  find_wrong_sums(values, count, rig.group.size(), rig.in_rank_order, findings);
  findings.add(same_on_all(rig.ranks, values), "ranks hold different bits");
  return findings.first();
}

// Sizes from a few bytes to tens of kilobytes, one after another in the same memory.
template <class T>
std::string sums_of_many_sizes(DeviceRig& rig) {
  Findings findings;
  constexpr size_t kMost = 20'000;
  Buffer<T> values(kMost);
  for (uint64_t round = 1; round <= 2 * kRounds; ++round) {
    const auto count = 1 + static_cast<int64_t>((number(round, 99, 0) + 1) * 0.49 * kMost);
    values.fill([&](size_t i) { return number(round, rig.group.rank(), i); });
    values.upload(rig.stream);
    rig.group.all_reduce_sum(View<T, 1>(values.device(), {count}), rig.stream);
    values.download(rig.stream);
    rig.group.check();
    for (int64_t i = 0; i < count; ++i) {
      const Sum expected = sum_of_numbers<T>(round, rig.group.size(), i);
      const double error = std::abs(static_cast<float>(values[i]) - expected.exact);
      findings.add(error <= expected.bound, fmt::format("round {}, element {} of {}: off by {}", round, i, count, error));
    }
    const bool rest_kept = static_cast<float>(values[kMost - 1]) == static_cast<float>(T(number(round, rig.group.rank(), kMost - 1)));
    findings.add(rest_kept, fmt::format("round {}: wrote behind {} elements", round, count));
  }
  return findings.first();
}

uint8_t byte_of(uint64_t seed, int rank, size_t i) { return static_cast<uint8_t>((number(seed, rank, i) + 1) * 127); }

void fill_bytes(Buffer<uint8_t>& buffer, uint64_t seed, int rank) {
  buffer.fill([&](size_t i) { return byte_of(seed, rank, i); });
}
// Whether elements [begin, begin + count) are rank's first `count` bytes of the seed.
void find_wrong_bytes(Buffer<uint8_t>& buffer, size_t begin, size_t count, std::pair<uint64_t, int> seed_and_rank, Findings& findings) {
  const auto [seed, rank] = seed_and_rank;
  for (size_t i = 0; i < count && findings.first().empty(); ++i) {
    findings.add(buffer[begin + i] == byte_of(seed, rank, i), fmt::format("byte {} of {} is not rank {}'s", i, count, rank));
  }
  findings.add(buffer.guarded(), "wrote beyond its memory");
}

std::string all_gather(DeviceRig& rig, size_t count, bool in_place) {
  Findings findings;
  const int size = rig.group.size(), rank = rig.group.rank();
  Buffer<uint8_t> mine(count), everyone(count * size);
  fill_bytes(mine, count, rank);
  mine.upload(rig.stream);
  everyone.fill([](size_t) { return 0xee; });
  if (in_place) std::memcpy(&everyone[rank * count], &mine[0], count);
  everyone.upload(rig.stream);
  rig.group.all_gather(in_place ? everyone.part(rank * count, count) : mine.bytes(), everyone.bytes(), rig.stream);
  everyone.download(rig.stream);
  rig.group.check();
  for (int r = 0; r < size; ++r) find_wrong_bytes(everyone, r * count, count, {count, r}, findings);
  return findings.first();
}

std::string gather(DeviceRig& rig, size_t count) {
  Findings findings;
  const int size = rig.group.size(), rank = rig.group.rank();
  Buffer<uint8_t> mine(count), everyone(count * size);
  for (int root = 0; root < size; ++root) {
    fill_bytes(mine, count + root, rank);
    mine.upload(rig.stream);
    everyone.fill([](size_t) { return 0xee; });
    everyone.upload(rig.stream);
    rig.group.gather(mine.bytes(), rank == root ? everyone.bytes() : std::span<std::byte>(), root, rig.stream);
    everyone.download(rig.stream);
    rig.group.check();
    if (rank != root) continue;
    for (int r = 0; r < size; ++r) find_wrong_bytes(everyone, r * count, count, {count + root, r}, findings);
  }
  return findings.first();
}

std::string broadcast(DeviceRig& rig, size_t count) {
  Findings findings;
  Buffer<uint8_t> bytes(count);
  for (int root = 0; root < rig.group.size(); ++root) {
    fill_bytes(bytes, count, rig.group.rank() + 10);
    if (rig.group.rank() == root) fill_bytes(bytes, count, root);
    bytes.upload(rig.stream);
    rig.group.broadcast(bytes.bytes(), root, rig.stream);
    bytes.download(rig.stream);
    rig.group.check();
    find_wrong_bytes(bytes, 0, count, {count, root}, findings);
  }
  return findings.first();
}

// Every rank sends to the next one, one after another: nobody waits in a circle.
void ring(DeviceRig& rig, Buffer<uint8_t>& mine, Buffer<uint8_t>& received) {
  const int size = rig.group.size(), rank = rig.group.rank();
  for (int from = 0; from < size; ++from) {
    const int to = (from + 1) % size;
    if (rank == from) rig.group.send(mine.bytes(), to, rig.stream);
    if (rank == to) rig.group.recv(received.bytes(), from, rig.stream);
  }
}

std::string messages(DeviceRig& rig, size_t count) {
  Findings findings;
  if (rig.group.size() == 1) return "";
  const int rank = rig.group.rank(), before = (rank + rig.group.size() - 1) % rig.group.size();
  Buffer<uint8_t> mine(count), received(count);
  for (uint64_t round = 0; round < 3; ++round) {
    fill_bytes(mine, count + round, rank);
    mine.upload(rig.stream);
    received.fill([](size_t) { return 0xee; });
    received.upload(rig.stream);
    ring(rig, mine, received);
    received.download(rig.stream);
    rig.group.check();
    find_wrong_bytes(received, 0, count, {count + round, before}, findings);
  }
  return findings.first();
}

// One decode step's worth of operations as a graph: sums, the sampled ids to everyone, logits together, the hidden state to the next.
struct Captured {
  static constexpr size_t kSumCount = 4099, kIds = 64, kBytes = 1000;
  Buffer<float> floats{kSumCount};
  Buffer<bf16> halves{kSumCount};
  Buffer<uint8_t> ids{kIds}, mine{kBytes}, everyone, received{kBytes};
  DeviceGraph graph;

  explicit Captured(DeviceRig& rig) : everyone(kBytes * rig.group.size()) {
    graph = DeviceGraph(rig.stream, [&] {
      rig.group.all_reduce_sum(view(floats), rig.stream);
      rig.group.all_reduce_sum(view(halves), rig.stream);
      rig.group.broadcast(ids.bytes(), rig.group.size() - 1, rig.stream);
      rig.group.all_gather(mine.bytes(), everyone.bytes(), rig.stream);
      if (rig.group.size() > 1) ring(rig, mine, received);
    });
    synchronize(rig.stream);
  }
  void upload(DeviceRig& rig, uint64_t round) {
    const int rank = rig.group.rank();
    floats.fill([&](size_t i) { return number(round, rank, i); });
    halves.fill([&](size_t i) { return number(round, rank, i); });
    for (Buffer<uint8_t>* bytes : {&ids, &mine}) fill_bytes(*bytes, round, rank);
    for (Buffer<uint8_t>* bytes : {&everyone, &received}) bytes->fill([](size_t) { return 0xee; });
    floats.upload(rig.stream);
    halves.upload(rig.stream);
    for (Buffer<uint8_t>* bytes : {&ids, &mine, &everyone, &received}) bytes->upload(rig.stream);
  }
  void compare(DeviceRig& rig, uint64_t round, Findings& findings) {
    const int size = rig.group.size(), before = (rig.group.rank() + size - 1) % size;
    floats.download(rig.stream);
    halves.download(rig.stream);
    for (Buffer<uint8_t>* bytes : {&ids, &everyone, &received}) bytes->download(rig.stream);
    find_wrong_sums(floats, round, size, rig.in_rank_order, findings);
    find_wrong_sums(halves, round, size, rig.in_rank_order, findings);
    find_wrong_bytes(ids, 0, kIds, {round, size - 1}, findings);
    for (int r = 0; r < size; ++r) find_wrong_bytes(everyone, r * kBytes, kBytes, {round, r}, findings);
    if (size > 1) find_wrong_bytes(received, 0, kBytes, {round, before}, findings);
  }
};

std::string graphs(DeviceRig& rig) {
  if (!rig.group.capturable()) return "";
  Findings findings;
  Captured step(rig);
  for (uint64_t round = 1; round <= kRounds; ++round) {
    step.upload(rig, round);
    step.graph.launch(rig.stream);
    rig.group.watch("the test's graph", rig.stream);
    synchronize(rig.stream);
    rig.group.check();
    step.compare(rig, round, findings);
    if (round % 10 == 0) {  // operations outside of graphs in between
      step.upload(rig, round + 1000);
      rig.group.all_reduce_sum(view(step.floats), rig.stream);
      step.floats.download(rig.stream);
      rig.group.check();
      find_wrong_sums(step.floats, round + 1000, rig.group.size(), rig.in_rank_order, findings);
    }
  }
  // Replays that nobody waits for in between. The sums grow without bound; the ids stay.
  step.upload(rig, 1);
  for (int round = 0; round < kRounds; ++round) step.graph.launch(rig.stream);
  rig.group.watch("the test's graphs", rig.stream);
  step.ids.download(rig.stream);
  rig.group.check();
  find_wrong_bytes(step.ids, 0, Captured::kIds, {1, rig.group.size() - 1}, findings);
  return findings.first();
}

}  // namespace

const std::vector<DeviceCheck>& device_checks() {
  static const std::vector<DeviceCheck> checks = [] {
    std::vector<DeviceCheck> all;
    for (size_t count : {1, 7, 1000, 12289, 1048579, 8388609}) {
      all.push_back({fmt::format("all_reduce_sum_f32_{}", count), [count](DeviceRig& rig) { return sum<float>(rig, count); }});
      all.push_back({fmt::format("all_reduce_sum_bf16_{}", count), [count](DeviceRig& rig) { return sum<bf16>(rig, count); }});
    }
    all.push_back({"sums_of_many_sizes_f32", sums_of_many_sizes<float>});
    all.push_back({"sums_of_many_sizes_bf16", sums_of_many_sizes<bf16>});
    for (size_t count : {1, 13, 4096, 1000003}) {
      for (bool in_place : {false, true}) {
        all.push_back({fmt::format("all_gather_{}{}", count, in_place ? "_in_place" : ""),
                       [=](DeviceRig& rig) { return all_gather(rig, count, in_place); }});
      }
      all.push_back({fmt::format("gather_{}", count), [count](DeviceRig& rig) { return gather(rig, count); }});
      all.push_back({fmt::format("broadcast_{}", count), [count](DeviceRig& rig) { return broadcast(rig, count); }});
      all.push_back({fmt::format("send_recv_{}", count), [count](DeviceRig& rig) { return messages(rig, count); }});
    }
    all.push_back({"graphs", graphs});
    return all;
  }();
  return checks;
}

}  // namespace accrete::parallel
#endif
