// How long an all-reduce takes, inside a CUDA graph as a decode step has it: NCCL's and the one-shot kernel, alone and with the residual
// addition and RMSNorm that follow it. bfloat16; device events around a graph of many operations, which follows the same graph on the
// stream: ranks leave that one together, so none counts its waiting for another that came late. The median over launches, the slowest rank's.
#if defined(ACCRETE_CUDA)
#include <algorithm>
#include <cstdio>
#include <functional>

#include "kernels/device/device_graph.h"
#include "kernels/norm/rms_norm.h"
#include "tests/parallel/device_data.h"
#include "tests/parallel/device_program.h"

namespace accrete::parallel {
namespace {

constexpr int kOperations = 50, kFewOperations = 10;  // in a graph; few of those that take long
constexpr size_t kLong = 256 << 10;                   // bytes
constexpr int kWarmUps = 2, kLaunches = 11;
constexpr size_t kLeast = 4 << 10, kMost = 4 << 20;  // bytes
constexpr int64_t kWidth = 4096;                     // E of the norms

struct Way {
  std::function<void()> enqueue;   // one operation
  std::function<void()> launched;  // after a graph
  size_t bytes;
};

// Microseconds of one operation.
double measure(Communicator& world, Stream& stream, const Way& way) {
  const int operations = way.bytes > kLong ? kFewOperations : kOperations;
  way.enqueue();  // what is made at first use is made outside of the capture
  synchronize(stream);
  DeviceGraph graph(stream, [&] {
    for (int i = 0; i < operations; ++i) way.enqueue();
  });
  DeviceEvent begin, end;
  std::vector<float> times;
  for (int i = -kWarmUps; i < kLaunches; ++i) {
    synchronize(stream);
    world.barrier();
    graph.launch(stream);
    begin.record(stream);
    graph.launch(stream);
    end.record(stream);
    way.launched();
    synchronize(stream);
    if (i >= 0) times.push_back(end.elapsed_ms_since(begin) * 1000 / static_cast<float>(operations));
  }
  std::nth_element(times.begin(), times.begin() + kLaunches / 2, times.end());
  std::vector<float> all(world.size());
  world.all_gather(std::as_bytes(std::span(&times[kLaunches / 2], 1)), std::as_writable_bytes(std::span(all)));
  return *std::max_element(all.begin(), all.end());
}

void print(Communicator& world, const char* operation, const char* by, size_t bytes, double us) {
  if (world.rank() != 0) return;
  const int gpus = std::min(device_count(), world.size());
  const double algbw = static_cast<double>(bytes) / us * 1e-3, ranks = world.size();
  std::printf("{\"op\": \"%s\", \"by\": \"%s\", \"ranks\": %d, \"gpus\": %d, \"dtype\": \"bf16\", \"bytes\": %zu, \"us\": %.2f, \"algbw_gbs\": %.3f, \"busbw_gbs\": %.3f}\n",
              operation, by, world.size(), gpus, bytes, us, algbw, algbw * 2 * (ranks - 1) / ranks);
  std::fflush(stdout);
}

}  // namespace

void bench(Communicator& world, Stream& stream) {
  const auto nccl = nccl_group_of(world, std::chrono::seconds(30));
  const auto one_shot = make_one_shot_group(world.split(0, world.rank()), {.capacity = kMost});
  constexpr size_t kElements = kMost / sizeof(bf16);
  Buffer<bf16> x(kElements), delta(kElements), y(kElements);
  Buffer<float> weight(kWidth);
  for (Buffer<bf16>* buffer : {&x, &delta, &y}) {
    buffer->fill([](size_t) { return 0.0f; });  // sums in place stay what they are
    buffer->upload(stream);
  }
  weight.fill([](size_t) { return 1.0f; });
  weight.upload(stream);
  synchronize(stream);
  const auto watch = [&] { nccl->watch("the benchmark's graph", stream); };
  const auto check = [&] { one_shot->check(); };
  for (size_t bytes = kLeast; bytes <= kMost; bytes *= 2) {
    const auto count = static_cast<int64_t>(bytes / sizeof(bf16));
    // One element of a guard lies before the data: shift to alignment, as the engine's tensors have it.
    const auto aligned = [](Buffer<bf16>& buffer) { return buffer.device() - 1; };
    const AnyView<1> values = View<bf16, 1>(aligned(delta), {count});
    print(world, "all_reduce_sum", "nccl", bytes, measure(world, stream, {[&] { nccl->all_reduce_sum(values, stream); }, watch, bytes}));
    print(world, "all_reduce_sum", "one_shot", bytes, measure(world, stream, {[&] { one_shot->all_reduce_sum(values, stream); }, check, bytes}));
    if (count % kWidth != 0) continue;
    RmsNorm norm;
    norm.x = View<bf16, 2>(aligned(x), {count / kWidth, kWidth});
    norm.delta = View<bf16, 2>(aligned(delta), {count / kWidth, kWidth});
    norm.y = View<bf16, 2>(aligned(y), {count / kWidth, kWidth});
    norm.weight = View<float, 1>(weight.device() - 1, {kWidth});
    const auto separate = [&] {
      nccl->all_reduce_sum(values, stream);
      rms_norm_cuda(norm, stream);
    };
    print(world, "all_reduce_norm", "nccl, then rms_norm", bytes, measure(world, stream, {separate, watch, bytes}));
    print(world, "all_reduce_norm", "one_shot", bytes, measure(world, stream, {[&] { one_shot->all_reduce_norm(norm, stream); }, check, bytes}));
  }
  nccl->check();
  one_shot->check();
}

}  // namespace accrete::parallel
#endif
