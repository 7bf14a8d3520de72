#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <fstream>
#include <thread>

#include "launch/cli/engine_flags.h"
#include "launch/process/child_job.h"
#include "launch/process/replica_job.h"
#include "launch/process/run_capture.h"
#include "launch/process/signal_gate.h"

namespace accrete::launch {
namespace {

using namespace std::chrono_literals;

bool eventually(const std::function<bool()>& holds) {
  for (int i = 0; i < 500; ++i) {
    if (holds()) return true;
    std::this_thread::sleep_for(10ms);
  }
  return false;
}

// Whether the process runs; a zombie that nobody has waited for counts as gone.
bool alive(pid_t pid) {
  std::ifstream file("/proc/" + std::to_string(pid) + "/stat");
  std::string number, name, state;
  return (file >> number >> name >> state) && state != "Z" && state != "X";
}

TEST(RunCapture, CollectsOutputAndExitCode) {
  const Captured result = run_capture({"sh", "-c", "printf hello; exit 3"});
  EXPECT_EQ(result.output, "hello");
  EXPECT_EQ(result.exit_code, 3);
  EXPECT_THROW(run_capture({"no-such-program-here"}), std::runtime_error);
}

TEST(ChildJob, TellsHowItEnded) {
  ChildJob job("r0", {"sh", "-c", "exit 7"});
  EXPECT_TRUE(eventually([&] { return job.poll().has_value(); }));
  EXPECT_EQ(job.poll(), 7);
  ChildJob sleeper("r1", {"sleep", "60"});
  EXPECT_FALSE(sleeper.poll());
  sleeper.terminate();
  EXPECT_TRUE(eventually([&] { return sleeper.poll() == 128 + SIGTERM; }));
}

TEST(ChildJob, MissingProgramThrows) { EXPECT_THROW(ChildJob("r0", {"no-such-program-here"}), std::runtime_error); }

TEST(ChildJob, DestructorEndsTheWholeGroup) {
  const std::string path = ::testing::TempDir() + "accrete_grandchild_" + std::to_string(getpid());
  pid_t grandchild = 0;
  {
    ChildJob job("r0", {"sh", "-c", "sleep 60 & echo $! > " + path + ".part; mv " + path + ".part " + path + "; wait"});
    ASSERT_TRUE(eventually([&] { return static_cast<bool>(std::ifstream(path) >> grandchild); }));
    EXPECT_TRUE(alive(grandchild));
    std::remove(path.c_str());
  }
  EXPECT_TRUE(eventually([&] { return !alive(grandchild); }));
}

TEST(ChildJob, DiesWithItsParentEvenWhenThatIsKilled) {
  int ends[2];
  ASSERT_EQ(pipe(ends), 0);
  const pid_t parent = fork();
  if (parent == 0) {
    ChildJob job("r0", {"sleep", "60"});
    const pid_t child = job.pid();
    if (write(ends[1], &child, sizeof child) != sizeof child) _exit(1);
    pause();
    _exit(0);
  }
  pid_t child = 0;
  ASSERT_EQ(read(ends[0], &child, sizeof child), static_cast<ssize_t>(sizeof child));
  EXPECT_TRUE(alive(child));
  kill(parent, SIGKILL);
  waitpid(parent, nullptr, 0);
  EXPECT_TRUE(eventually([&] { return !alive(child); }));
}

TEST(SignalGate, HandsSignalsOver) {
  SignalGate gate;
  EXPECT_EQ(gate.wait(1ms), 0);
  kill(getpid(), SIGTERM);
  EXPECT_EQ(gate.wait(5s), SIGTERM);
}

TEST(SignalGate, WorksWhenAnotherThreadGetsTheSignal) {
  SignalGate gate;
  std::thread other([] { raise(SIGINT); });
  other.join();
  EXPECT_EQ(gate.wait(5s), SIGINT);
}

TEST(ReplicaCommand, OneRankNeedsNoMpirun) {
  worker::EngineOptions options;
  options.model = "m.gguf";
  const auto command = replica_command(options, "bin/accrete", "127.0.0.1:8001");
  EXPECT_EQ(command, (std::vector<std::string>{"bin/accrete", "worker", "--model=m.gguf", "--coordinator=127.0.0.1:8001", "--reconnect-seconds=0"}));
}

TEST(ReplicaCommand, SeveralRanksRunUnderMpirun) {
  worker::EngineOptions options;
  options.model = "m.gguf";
  options.topology = {.tensor = 2, .pipeline = 3, .data = 1};
  const auto command = replica_command(options, "bin/accrete", "127.0.0.1:8001");
  ASSERT_GT(command.size(), 4u);
  EXPECT_EQ(command[0], "mpirun");
  EXPECT_EQ(command[2], "6");
  EXPECT_NE(std::find(command.begin(), command.end(), "--tensor-parallel-size=2"), command.end());
  EXPECT_NE(std::find(command.begin(), command.end(), "--pipeline-parallel-size=3"), command.end());
}

// Replicas of one machine do not meet on its GPUs.
TEST(ReplicaOptions, EachReplicaHasItsOwnGpusAndCores) {
  worker::EngineOptions options;
  options.topology = {.tensor = 2, .pipeline = 2, .data = 3};
  options.base_gpu_id = 1;
  for (int i = 0; i < 3; ++i) {
    const worker::EngineOptions replica = replica_options(options, i, 12);
    EXPECT_EQ(replica.all_reduce, "auto");
    EXPECT_EQ(replica.base_gpu_id, 1 + 4 * i);
    EXPECT_EQ(replica.topology.data, 1);
    EXPECT_EQ(replica.cpu_threads, std::max(1, static_cast<int>(std::thread::hardware_concurrency()) / 12));
  }
  options.cpu_threads = 5;
  EXPECT_EQ(replica_options(options, 2, 0).cpu_threads, 5);
  EXPECT_EQ(replica_options(options, 2, 0).all_reduce, "auto");
  EXPECT_EQ(replica_options(options, 0, 11).all_reduce, "group") << "12 ranks on 11 GPUs";
}

TEST(EngineArguments, RoundTripEveryOption) {
  worker::EngineOptions given;
  given.model = "a b.gguf";
  given.served_model_name = "name";
  given.load_format = "gguf";
  given.adapter = "lora";
  given.dtype = "float32";
  given.quantization = "fp8";
  given.kv_cache_dtype = "bfloat16";
  given.device = "cuda";
  given.seed = 12345678901234567ull;
  given.topology = {.tensor = 2, .pipeline = 3, .data = 4};
  given.max_model_len = 99;
  given.max_num_seqs = 5;
  given.max_num_batched_tokens = 77;
  given.cpu_threads = 3;
  given.base_gpu_id = 6;
  given.block_size = 8;
  given.kv_cache_memory_bytes = 123456789;
  given.gpu_memory_utilization = 0.25;
  given.swap_space_gib = 1.5;
  given.dmc = "off";
  given.dmc_window = 0;
  given.dmc_synthetic_cr = 3.25;
  given.async_scheduling = "on";
  given.enforce_eager = true;
  given.tune_products = false;
  given.all_reduce = "one-shot";
  given.device_group = "staged";
  CLI::App app;
  EngineFlags read;
  add_engine_flags(app, read);
  const std::vector<std::string> arguments = engine_arguments(given);
  app.parse(std::vector<std::string>(arguments.rbegin(), arguments.rend()));
  EXPECT_EQ(read.options, given);
  for (const CLI::Option* option : app.get_options([](const CLI::Option* each) { return each->nonpositional() && each->get_name() != "--help"; })) {
    EXPECT_GT(option->count(), 0u) << option->get_name() << " does not reach the ranks";
  }
}

}  // namespace
}  // namespace accrete::launch
