#include "launch/bench/kernels/lab.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "kernels/device/read_pass.h"
#include "launch/bench/record.h"

namespace accrete::launch {
namespace {

constexpr int64_t kOtherBytes = int64_t{256} << 20;   // five times an H100's level-two cache; reading it takes 90 us, in which the host
                                                      // gets ahead of the device
constexpr int64_t kPoolPages = int64_t{2} << 20;      // 16 GiB of 8 KiB: far past what address translation caches hold
constexpr int64_t kCheckedBytes = int64_t{32} << 20;  // of an output, its end
constexpr int64_t kMostLaunches = 400;                // of a graph
constexpr double kGraphUs = 1000.0;                   // that a graph should run at least: its start is then nothing
constexpr double kQuickGraphUs = 400.0;

// Whether the number is NaN or infinite.
bool unusable(DType type, const std::byte* at) {
  if (type == DType::bf16) return (*reinterpret_cast<const uint16_t*>(at) & 0x7f80u) == 0x7f80u;
  if (type == DType::fp8) return (*reinterpret_cast<const uint8_t*>(at) & 0x7fu) == 0x7fu;
  return (*reinterpret_cast<const uint32_t*>(at) & 0x7f800000u) == 0x7f800000u;
}

int64_t bytes_of(const AnyView<1>& view) { return view.shape[0] * static_cast<int64_t>(size_of(view.dtype)); }

}  // namespace

Lab::Lab(const KernelBenchOptions& options)
    : device_(use_device(0)),
      quick_(options.quick),
      filter_(options.filter),
      other_(kOtherBytes / static_cast<int64_t>(sizeof(uint32_t))),
      parity_(1) {
  stream().gemm = &plans_;
  fill_random_cuda({View<float, 1>(reinterpret_cast<float*>(other_.data()), {other_.size()}), 7, 1.0f}, stream());
  fill_device(parity_.data(), 0, parity_.bytes(), stream());
  report_.device = fmt::format("{}, {} multiprocessors, {:.0f} MB level-two cache, {:.0f} GB", device_.name, device_.multiprocessors,
                               static_cast<double>(device_.l2_bytes) * 1e-6, static_cast<double>(device_.total_bytes) * 1e-9);
}

Lab::~Lab() = default;

bool Lab::wants(const Label& label) const { return std::regex_search(label.text(), filter_); }

int64_t Lab::turns_past_cache(double bytes, int64_t most) const {
  const double turns = std::ceil(2 * static_cast<double>(device_.l2_bytes) / std::max(bytes, 1.0));
  return static_cast<int64_t>(std::clamp(turns, 1.0, static_cast<double>(most)));
}

RandomPages& Lab::pages() {
  if (!pages_) pages_ = std::make_unique<RandomPages>(kPoolPages, stream());
  return *pages_;
}

void Lab::empty_cache() {
  const View<const uint32_t, 1> words = other_.flat();
  read_pass_cuda({words, parity_.flat()}, stream());
}

// Microseconds of each replay. All are enqueued at once, so that the device never waits for the host between a start and its stop.
std::vector<double> Lab::replay(DeviceGraph& graph, const Work& work, int count) {
  std::vector<DeviceEvent> starts(count), stops(count);
  for (int i = 0; i < count; ++i) {
    if (work.reset) work.reset();
    empty_cache();
    starts[i].record(stream());
    graph.launch(stream());
    stops[i].record(stream());
  }
  synchronize(stream());
  std::vector<double> times;
  for (int i = 0; i < count; ++i) times.push_back(static_cast<double>(stops[i].elapsed_ms_since(starts[i])) * 1e3);
  return times;
}

double Lab::round_us(DeviceGraph& graph, const Work& work) { return replay(graph, work, 2).back(); }

Timing Lab::time(const Work& work) {
  if (work.output.data) fill_device(work.output.data, 0xff, bytes_of(work.output), stream());
  if (work.reset) work.reset();
  for (int64_t turn = 0; turn < work.turns; ++turn) work.launch(turn);  // loads the kernels, which a capture must not
  synchronize(stream());
  const auto rounds_of = [&](int64_t rounds) {
    return DeviceGraph(stream(), [&, rounds] {
      for (int64_t i = 0; i < rounds * work.turns; ++i) work.launch(i % work.turns);
    });
  };
  DeviceGraph graph = rounds_of(1);
  int64_t rounds = 1;
  if (!work.reset) {
    const double wanted = (quick_ ? kQuickGraphUs : kGraphUs) / std::max(round_us(graph, work), 1.0);
    rounds = std::clamp<int64_t>(static_cast<int64_t>(std::ceil(wanted)), 1, std::max<int64_t>(1, kMostLaunches / work.turns));
    if (rounds > 1) graph = rounds_of(rounds);
  }
  replay(graph, work, 2);  // warm-up
  std::vector<double> times = replay(graph, work, quick_ ? 10 : 20);
  check_written(work.output);
  for (double& us : times) us /= static_cast<double>(rounds * work.turns);
  std::sort(times.begin(), times.end());
  return {percentile(times, 50), percentile(times, 10), percentile(times, 90)};
}

void Lab::check_written(const AnyView<1>& output) {
  if (!output.data) return;
  const int64_t bytes = std::min(kCheckedBytes, bytes_of(output)), size = static_cast<int64_t>(size_of(output.dtype));
  std::vector<std::byte> end(bytes);
  copy_to_host(end.data(), static_cast<const std::byte*>(output.data) + bytes_of(output) - bytes, bytes, stream());
  synchronize(stream());
  int64_t bad = 0;
  for (int64_t at = 0; at < bytes; at += size) bad += unusable(output.dtype, end.data() + at) ? 1 : 0;
  if (bad > 0) throw std::runtime_error(fmt::format("{} of the last {} outputs are NaN, infinite or were never written", bad, bytes / size));
}

const Row& Lab::add(Row row) {
  fmt::print("{}\n", table_line(row, report_.ceilings));
  std::fflush(stdout);
  report_.rows.push_back(std::move(row));
  return report_.rows.back();
}

void Lab::fail(const std::string& what) {
  fmt::print(stderr, "bench kernels: not measured: {}\n", what);
  report_.failures.push_back(what);
}

}  // namespace accrete::launch
