// The communicator's checks under mpirun, every rank running the same list. With an argument it shows one way to fail
// instead:
//   abort    another thread of rank 1 calls abort(7) while all wait
//   throw    rank 1 throws out of the session
//   kill     rank 1 gets SIGKILL
//   idle     all ranks but 0 wait two seconds for a message, then print the percentage of a core that took
#include <gtest/gtest.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <ctime>
#include <stdexcept>
#include <string>
#include <thread>

#include "parallel/mpi_communicator.h"
#include "tests/parallel/communicator_checks.h"

namespace {

using accrete::parallel::Communicator;
using accrete::parallel::CommunicatorCheck;

Communicator* world = nullptr;  // gtest's bodies take no arguments

class OverMpi : public testing::TestWithParam<CommunicatorCheck> {};
TEST_P(OverMpi, Check) {
  GetParam().run(*world);
  world->barrier();
}
INSTANTIATE_TEST_SUITE_P(World, OverMpi, testing::ValuesIn(accrete::parallel::communicator_checks()),
                         [](const auto& info) { return info.param.name; });

void fail_as_told(Communicator& group, const std::string& how) {
  group.barrier();
  if (group.rank() == 1) {
    if (how == "abort") {
      std::thread([&group] {
        std::this_thread::sleep_for(std::chrono::milliseconds(50));
        group.abort(7, "told to");
      }).detach();
    }
    if (how == "throw") throw std::runtime_error("told to");
    if (how == "kill") std::raise(SIGKILL);
  }
  std::vector<float> one(1);
  if (group.rank() % 2 == 0)
    group.recv(1, 0);
  else
    group.all_reduce_sum(one);
}

void measure_idle(Communicator& group) {
  group.barrier();
  const std::clock_t before = std::clock();
  constexpr int kSeconds = 2;
  if (group.rank() == 0) {
    std::this_thread::sleep_for(std::chrono::seconds(kSeconds));
    for (int to = 1; to < group.size(); ++to) group.send({}, to, 0);
  } else {
    group.recv(0, 0);
    std::printf("rank %d idle: %.2f %% of a core\n", group.rank(),
                100.0 * (std::clock() - before) / CLOCKS_PER_SEC / kSeconds);
  }
}

}  // namespace

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  accrete::parallel::MpiSession session;
  const auto group = session.world();
  world = group.get();
  const std::string how = argc > 1 ? argv[1] : "";
  if (how == "idle") {
    measure_idle(*group);
    return 0;
  }
  if (!how.empty()) {
    try {
      fail_as_told(*group, how);
    } catch (const std::runtime_error& error) {
      std::fprintf(stderr, "rank %d: %s\n", group->rank(), error.what());
      group->abort(1, error.what());
    }
  }
  return RUN_ALL_TESTS();
}
