#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <ctime>
#include <functional>
#include <string>
#include <thread>

#include "tests/parallel/communicator_checks.h"

namespace accrete::parallel {

namespace {

using Ranks = std::vector<std::unique_ptr<Communicator>>;

// Runs body on a thread for each rank, which owns its communicator.
void on_all(Ranks ranks, const std::function<void(Communicator&)>& body) {
  std::vector<std::thread> threads;
  for (auto& rank : ranks)
    threads.emplace_back([&body, mine = std::move(rank)]() mutable {
      body(*mine);
      mine.reset();
    });
  for (std::thread& thread : threads) thread.join();
}

class OverThreads : public testing::TestWithParam<std::tuple<int, CommunicatorCheck>> {};

TEST_P(OverThreads, Check) {
  const auto& [n, check] = GetParam();
  on_all(make_threads(n), check.run);
}

INSTANTIATE_TEST_SUITE_P(Ranks, OverThreads,
                         testing::Combine(testing::Values(1, 2, 3, 5), testing::ValuesIn(communicator_checks())),
                         [](const auto& info) {
                           return std::get<1>(info.param).name + "_" + std::to_string(std::get<0>(info.param));
                         });

class Alone : public testing::TestWithParam<CommunicatorCheck> {};
TEST_P(Alone, Check) {
  GetParam().run(*make_single());
}
INSTANTIATE_TEST_SUITE_P(Single, Alone, testing::ValuesIn(communicator_checks()),
                         [](const auto& info) { return info.param.name; });

TEST(SingleCommunicator, ReceivingWhatNobodySendsIsAnError) {
  EXPECT_THROW(make_single()->recv(0, 1), CommError);
}

TEST(ThreadCommunicator, AbortWakesEveryWait) {
  std::atomic<int> woken{0};
  on_all(make_threads(5), [&](Communicator& group) {
    const auto part = group.split(group.rank() == 4 ? 1 : 0, group.rank());
    group.barrier();
    const auto expect_abort = [&](const std::function<void()>& wait) {
      try {
        wait();
        ADD_FAILURE() << "rank " << group.rank() << " was not woken";
      } catch (const CommError& error) {
        EXPECT_NE(std::string(error.what()).find("disk on fire"), std::string::npos) << error.what();
        ++woken;
      }
    };
    if (group.rank() == 0) expect_abort([&] { part->barrier(); });
    if (group.rank() == 1) expect_abort([&] { group.recv(4, 0); });
    if (group.rank() == 2) expect_abort([&] { group.recv(2, 0); });
    if (group.rank() == 3)
      expect_abort([&] {
        std::vector<float> one(1);
        part->all_reduce_sum(one);
      });
    if (group.rank() != 4) return;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));  // so that the others sleep by then
    group.abort(3, "disk on fire");
    EXPECT_THROW(group.send({}, 0, 0), CommError);
  });
  EXPECT_EQ(woken, 4);
}

TEST(ThreadCommunicator, ARankThatLeftIsAnErrorNotAWait) {
  std::atomic<int> noticed{0};
  on_all(make_threads(3), [&](Communicator& group) {
    if (group.rank() == 2) {
      group.send({}, 0, 1);
      return;
    }
    if (group.rank() == 0) {
      EXPECT_TRUE(group.recv(2, 1).empty());  // what it sent before it left still arrives
      EXPECT_THROW(group.recv(2, 1), CommError);
    } else {
      EXPECT_THROW(group.barrier(), CommError);
    }
    ++noticed;
  });
  EXPECT_EQ(noticed, 2);
}

TEST(ThreadCommunicator, AnIdleRecvSleeps) {
  on_all(make_threads(2), [&](Communicator& group) {
    if (group.rank() == 1) {
      const std::clock_t before = std::clock();
      std::this_thread::sleep_for(std::chrono::milliseconds(400));
      EXPECT_LT(std::clock() - before, CLOCKS_PER_SEC / 5);  // a busy wait would take all of the 0.4 s
      group.send({}, 0, 0);
    } else {
      group.recv(1, 0);
    }
  });
}

}  // namespace

}  // namespace accrete::parallel
