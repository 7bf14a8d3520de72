// How long an all-reduce takes (operation_time.h): NCCL's and the one-shot kernel, alone and with the residual addition and RMSNorm that
// follow it. bfloat16.
#if defined(ACCRETE_CUDA)
#include <algorithm>
#include <cstdio>

#include "kernels/norm/rms_norm.h"
#include "parallel/one_shot_limits.h"
#include "parallel/operation_time.h"
#include "tests/parallel/device_data.h"
#include "tests/parallel/device_program.h"

namespace accrete::parallel {
namespace {

constexpr int kOperations = 50, kFewOperations = 10;  // in a graph; few of those that take long
constexpr size_t kLong = 256 << 10;                   // bytes
constexpr size_t kLeast = 4 << 10, kMost = 16 << 20;  // bytes
constexpr int64_t kWidth = 4096;                     // E of the norms
constexpr int kTunedWidth = 8192;

int operations_of(size_t bytes) { return bytes > kLong ? kFewOperations : kOperations; }

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
  const auto one_shot = make_one_shot_group(world.split(0, world.rank()), {.capacity = kMost, .alone = true});
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
    print(world, "all_reduce_sum", "nccl", bytes, operation_us(world, stream, {[&] { nccl->all_reduce_sum(values, stream); }, watch, operations_of(bytes)}));
    print(world, "all_reduce_sum", "one_shot", bytes, operation_us(world, stream, {[&] { one_shot->all_reduce_sum({values, {}}, stream); }, check, operations_of(bytes)}));
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
    print(world, "all_reduce_norm", "nccl, then rms_norm", bytes, operation_us(world, stream, {separate, watch, operations_of(bytes)}));
    print(world, "all_reduce_norm", "one_shot", bytes, operation_us(world, stream, {[&] { one_shot->all_reduce_norm(norm, stream); }, check, operations_of(bytes)}));
  }
  nccl->check();
  one_shot->check();
  const OneShotLimits limits = tune_one_shot({*one_shot, *nccl, world, kTunedWidth, static_cast<int64_t>(kMost)}, stream);
  if (world.rank() != 0) return;
  std::printf("{\"op\": \"tune_one_shot\", \"ranks\": %d, \"width\": %d, \"sum_bytes\": %ld, \"norm_bytes\": %ld}\n", world.size(), kTunedWidth, limits.sum_bytes,
              limits.norm_bytes);
}

}  // namespace accrete::parallel
#endif
