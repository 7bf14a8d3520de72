// Groups of device memory under mpirun, a process for each rank; device_group.sh starts it.
//   device_groups [--group nccl|staged|one-shot] [--timeout-ms N]    every check, one line each; exit code 1 when one fails
//   device_groups --group nccl|one-shot --fail kill|hang [--in-graph] [--timeout-ms N]    see device_program.h
//   device_groups --bench
//   device_groups --devices    without mpirun: the number of GPUs, or why none can be used
// 77: no GPU.
#if defined(ACCRETE_CUDA)
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>

#include "kernels/device/device_memory.h"
#include "parallel/mpi_communicator.h"
#include "parallel/staged_group.h"
#include "tests/parallel/device_checks.h"
#include "tests/parallel/device_program.h"

namespace accrete::parallel {

namespace {

constexpr int kSkip = 77;

ProgramOptions parse(int argc, char** argv) {
  ProgramOptions options;
  for (int i = 1; i < argc; ++i) {
    const std::string argument = argv[i];
    if (argument == "--bench") options.bench = true;
    else if (argument == "--in-graph") options.in_graph = true;
    else if (argument == "--group" && i + 1 < argc) options.group = argv[++i];
    else if (argument == "--fail" && i + 1 < argc) options.fail = argv[++i];
    else if (argument == "--timeout-ms" && i + 1 < argc) options.timeout = std::chrono::milliseconds(std::atoi(argv[++i]));
    else {
      std::fprintf(stderr, "unknown argument or no value: %s\n", argument.c_str());
      std::exit(2);
    }
  }
  return options;
}

// Prints one line for all ranks; whether it was fine on all.
bool report(Communicator& world, const std::string& name, const std::string& error, double seconds) {
  constexpr size_t kText = 300;
  std::vector<char> mine(kText), all(kText * world.size());
  std::memcpy(mine.data(), error.data(), std::min(error.size(), kText - 1));
  world.all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)));
  int wrong = 0;
  while (wrong < world.size() && !all[wrong * kText]) ++wrong;
  const bool fine = wrong == world.size();
  if (world.rank() == 0) {
    if (fine) std::printf("ok   %d ranks: %s (%.2f s)\n", world.size(), name.c_str(), seconds);
    else std::printf("FAIL %d ranks: %s: rank %d: %s\n", world.size(), name.c_str(), wrong, &all[wrong * kText]);
    std::fflush(stdout);
  }
  return fine;
}

// What is wrong. A group that breaks ends the program, since the ranks may be in different places; `name` says in which check.
template <class Check, class Rig>
std::string run_check(const std::string& name, const Check& check, Rig& rig) {
  try {
    return check.run(rig);
  } catch (const std::exception& error) {
    throw CommError(name + ": " + error.what());
  }
}

// Runs a list of checks; how many failed.
template <class Check, class Rig>
int run_checks(const std::string& group, const std::vector<Check>& checks, Rig& rig) {
  int failed = 0;
  for (const Check& check : checks) {
    const auto begin = std::chrono::steady_clock::now();
    const std::string error = run_check(group + " " + check.name, check, rig);
    const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
    if (!report(rig.ranks, group + " " + check.name, error, took.count())) ++failed;
  }
  return failed;
}

int run_group(Communicator& world, const std::string& name, const ProgramOptions& options, Stream& stream) {
  if (name == "one-shot") {
    const auto group = make_one_shot_group(world.split(0, world.rank()), {.timeout = options.timeout, .alone = true});
    OneShotRig rig{*group, world, stream};
    return run_checks(name, one_shot_checks(), rig);
  }
  const bool staged = name == "staged";
  const auto group = staged ? make_staged_group(world.split(0, world.rank())) : nccl_group_of(world, options.timeout);
  DeviceRig rig{*group, world, stream, staged};
  std::vector<DeviceCheck> checks = device_checks();
  if (!staged) checks.push_back({"limits_of_one_shot", [](DeviceRig& r) { return limits_found(r.group, r.ranks, r.stream); }});
  return run_checks(name, checks, rig);
}

int run(Communicator& world, const ProgramOptions& options) {
  std::string why;
  const int devices = device_count(&why);
  if (devices == 0) {
    if (world.rank() == 0) std::printf("skipped: no CUDA device: %s\n", why.c_str());
    return kSkip;
  }
  const char* local = std::getenv("OMPI_COMM_WORLD_LOCAL_RANK");
  const DeviceInfo device = use_device((local ? std::atoi(local) : world.rank()) % devices);
  std::fprintf(stderr, "rank %d of %d: GPU %d (%s)\n", world.rank(), world.size(), device.index, device.name.c_str());
  DeviceStream stream;
  if (!options.fail.empty()) fail_as_told(world, options, stream.stream());
  if (options.bench) {
    bench(world, stream.stream());
    return 0;
  }
  int failed = 0;
  for (const char* group : {"staged", "one-shot", "nccl"}) {
    if (options.group == "all" || options.group == group) failed += run_group(world, group, options, stream.stream());
  }
  if (world.rank() == 0) std::printf("%d ranks: %d checks failed\n", world.size(), failed);
  return failed == 0 ? 0 : 1;
}

// The number of GPUs, or what is wrong with the first: its use shows whether it can be shared.
std::string devices() {
  try {
    use_device(0);
    const DeviceMemory memory(1);
    return std::to_string(device_count());
  } catch (const std::exception& error) {
    return error.what();
  }
}

}  // namespace
}  // namespace accrete::parallel

int main(int argc, char** argv) {
  using namespace accrete::parallel;
  if (argc == 2 && std::strcmp(argv[1], "--devices") == 0) {
    std::puts(devices().c_str());
    return 0;
  }
  const ProgramOptions options = parse(argc, argv);
  MpiSession session;
  const auto world = session.world();
  try {
    return run(*world, options);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "rank %d: %s\n", world->rank(), error.what());
    world->abort(1, error.what());
  }
  return 1;
}
#else
#include <cstdio>
int main() {
  std::puts("skipped: this build has no CUDA");
  return 77;
}
#endif
