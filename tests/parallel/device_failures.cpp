#if defined(ACCRETE_CUDA)
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <thread>

#include "kernels/cuda.h"
#include "kernels/device/device_graph.h"
#include "tests/parallel/device_data.h"
#include "tests/parallel/device_program.h"

namespace accrete::parallel {
namespace {

constexpr int kFailing = 1;  // the rank
constexpr int kTag = 1, kReported = 2;
constexpr int kBefore = 20;  // operations that work
constexpr int64_t kCount = 4096;

// NCCL or one-shot, as far as this needs them.
struct AnyGroup {
  std::function<void(const AnyView<1>&, Stream&)> all_reduce_sum;
  std::function<void(Stream&)> watch;
  std::function<void()> check;
};

AnyGroup any(DeviceGroup& group) {
  return {[&group](const AnyView<1>& values, Stream& stream) { group.all_reduce_sum(values, stream); },
          [&group](Stream& stream) { group.watch("the test's graph", stream); }, [&group] { group.check(); }};
}
AnyGroup any(OneShotGroup& group) {
  return {[&group](const AnyView<1>& values, Stream& stream) { group.all_reduce_sum({values, {}}, stream); }, [](Stream&) {}, [&group] { group.check(); }};
}

// What the group says about the operation that its rank 1 does not take part in.
std::string error_of(const AnyGroup& group, const std::function<void()>& enqueue, Communicator& world, Stream& stream) {
  try {
    enqueue();
    world.send({}, kFailing, kTag);
    synchronize(stream);
    group.check();
  } catch (const CommError& error) {
    return error.what();
  } catch (const CudaError& error) {
    return std::string("not by the group: ") + error.what();
  }
  return "no error";
}

// What a survivor may take on top of the group's timeout.
constexpr std::chrono::seconds kGrace{5};

[[noreturn]] void fail_when_all_wait(Communicator& world, const ProgramOptions& options) {
  // Nothing of this rank is on the GPU: the multi-process service does not survive a client that is killed with kernels in flight.
  for (int r = 0; r < world.size(); ++r) {
    if (r != kFailing) world.recv(r, kTag);
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the others' kernels have started by then; if not, the test is a little easier
  if (options.fail == "kill") std::raise(SIGKILL);
  const auto end = std::chrono::steady_clock::now() + options.timeout + kGrace;
  // A hang, as long as it matters to the others.
  for (int reports = 0; reports < world.size() - 1 && std::chrono::steady_clock::now() < end;) {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    reports = 0;
    for (int r = 0; r < world.size(); ++r) reports += r != kFailing && world.poll(r, kReported) ? 1 : 0;
  }
  std::_Exit(0);
}

[[noreturn]] void survive(const AnyGroup& group, const std::function<void()>& enqueue, Communicator& world, Stream& stream,
                          const ProgramOptions& options) {
  const auto begin = std::chrono::steady_clock::now();
  const std::string error = error_of(group, enqueue, world, stream);
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
  // The operation in a graph is the group's 21st, a watch its 22nd; for NCCL that is what fails.
  const bool watched = options.in_graph && options.group == "nccl";
  const std::string who = fmt::format("rank {} of {}: ", world.rank(), world.size());
  const std::string what = watched ? fmt::format("the test's graph (operation {}", kBefore + 2)
                                   : fmt::format("all_reduce_sum (operation {}, {} bytes)", kBefore + 1, kCount * sizeof(float));
  const bool named = error.find(who) != std::string::npos && error.find(what) != std::string::npos;
  const bool in_time = took < options.timeout + kGrace;
  std::printf("%s: rank %d after %.1f s: %s\n", named && in_time ? "ok" : "FAIL", world.rank(), took.count(), error.c_str());
  std::fflush(stdout);
  if (options.fail == "hang") world.send({}, kFailing, kReported);
  std::_Exit(named && in_time ? 1 : 3);  // MPI cannot say goodbye to a rank that is gone
}

}  // namespace

[[noreturn]] void fail_as_told(Communicator& world, const ProgramOptions& options, Stream& stream) {
  std::unique_ptr<DeviceGroup> nccl;
  std::unique_ptr<OneShotGroup> one_shot;
  if (options.group == "nccl") nccl = nccl_group_of(world, options.timeout);
  else one_shot = make_one_shot_group(world.split(0, world.rank()), {.timeout = options.timeout});
  const AnyGroup group = nccl ? any(*nccl) : any(*one_shot);
  Buffer<float> values(kCount);
  values.fill([](size_t) { return 0.0f; });
  values.upload(stream);
  const AnyView<1> view = View<float, 1>(values.device(), {kCount});
  for (int i = 0; i < kBefore; ++i) group.all_reduce_sum(view, stream);
  DeviceGraph graph;
  if (options.in_graph) graph = DeviceGraph(stream, [&] { group.all_reduce_sum(view, stream); });
  synchronize(stream);
  group.check();
  world.barrier();
  if (world.rank() == kFailing) fail_when_all_wait(world, options);
  const auto enqueue = [&] {
    if (!options.in_graph) return group.all_reduce_sum(view, stream);
    graph.launch(stream);
    group.watch(stream);
  };
  survive(group, enqueue, world, stream, options);
}

}  // namespace accrete::parallel
#endif
