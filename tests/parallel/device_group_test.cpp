// Groups of device memory with ranks as threads of one process on one GPU: staged through the host, and the one-shot all-reduce, whose
// kernels then see each other's memory without CUDA IPC. NCCL wants a process for each rank: device_group.sh.
#if defined(ACCRETE_CUDA)

#include <gtest/gtest.h>

#include <cstdlib>
#include <functional>
#include <thread>

#include "kernels/all_reduce/one_shot.h"
#include "parallel/staged_group.h"
#include "tests/parallel/device_checks.h"
#include "tests/parallel/device_data.h"

namespace accrete::parallel {
namespace {

// Streams that share a queue of the GPU run one after another, and ranks on them would wait for each other in vain. CUDA reads this when
// it starts, which is after static initialisation.
[[maybe_unused]] const int kQueues = setenv("CUDA_DEVICE_MAX_CONNECTIONS", "32", 1);

// Runs body on a thread for each of n ranks. One that throws gives up its communicator, and the others end, too.
void on_all(int n, const std::function<void(std::unique_ptr<Communicator>)>& body) {
  std::vector<std::thread> threads;
  for (auto& rank : make_threads(n)) {
    threads.emplace_back([&body, mine = std::move(rank)]() mutable {
      try {
        body(std::move(mine));
      } catch (const std::exception& error) {
        ADD_FAILURE() << error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
}

template <class Base>
class OnGpu : public Base {
 protected:
  void SetUp() override {
    std::string why;
    if (device_count(&why) == 0) GTEST_SKIP() << "no CUDA device: " << why;
  }
};

// All checks are one test: each ctest test is a process, which takes a second to start CUDA.
struct StagedCase {
  int ranks;
  size_t staging_bytes;
};
void PrintTo(const StagedCase& how, std::ostream* out) { *out << how.ranks << " ranks, staging " << how.staging_bytes; }
class Staged : public OnGpu<testing::TestWithParam<StagedCase>> {};
TEST_P(Staged, EveryCheck) {
  on_all(GetParam().ranks, [bytes = GetParam().staging_bytes](std::unique_ptr<Communicator> ranks) {
    DeviceStream stream;
    const auto group = make_staged_group(ranks->split(0, ranks->rank()), bytes);
    DeviceRig rig{*group, *ranks, stream.stream(), true};
    for (const DeviceCheck& check : device_checks()) EXPECT_EQ(check.run(rig), "") << check.name << ", rank " << group->rank();
  });
}
INSTANTIATE_TEST_SUITE_P(Ranks, Staged, testing::Values(StagedCase{1, kStagingBytes}, StagedCase{3, kStagingBytes}, StagedCase{2, 4096}),
                         [](const auto& info) { return fmt::format("{}_ranks_{}", info.param.ranks, info.param.staging_bytes); });

class OneShot : public OnGpu<testing::TestWithParam<int>> {};
TEST_P(OneShot, EveryCheck) {
  on_all(GetParam(), [](std::unique_ptr<Communicator> ranks) {
    DeviceStream stream;
    const auto group = make_one_shot_group(ranks->split(0, ranks->rank()), {.timeout = std::chrono::seconds(10)});
    OneShotRig rig{*group, *ranks, stream.stream()};
    for (const OneShotCheck& check : one_shot_checks()) EXPECT_EQ(check.run(rig), "") << check.name << ", rank " << group->rank();
  });
}
INSTANTIATE_TEST_SUITE_P(Ranks, OneShot, testing::Values(1, 2, 4), [](const auto& info) { return std::to_string(info.param) + "_ranks"; });

std::string error_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const CommError& error) {
    return error.what();
  }
  return "no error";
}

class LostRank : public OnGpu<testing::Test> {};

TEST_F(LostRank, StagedGroupNamesTheOperation) {
  on_all(2, [](std::unique_ptr<Communicator> ranks) {
    DeviceStream stream;
    Buffer<float> values(100);
    const auto group = make_staged_group(ranks->split(0, ranks->rank()));
    const AnyView<1> view = View<float, 1>(values.device(), {100});
    group->all_reduce_sum(view, stream.stream());
    if (ranks->rank() == 1) return group->abort();
    const std::string error = error_of([&] { group->all_reduce_sum(view, stream.stream()); });
    EXPECT_NE(error.find("rank 0 of 2: all_reduce_sum (operation 2, 400 bytes) failed"), std::string::npos) << error;
    EXPECT_EQ(error_of([&] { group->check(); }), error);
  });
}

TEST_F(LostRank, OneShotGroupNamesRankAndOperation) {
  on_all(2, [](std::unique_ptr<Communicator> ranks) {
    DeviceStream stream;
    Buffer<float> values(100);
    const auto group = make_one_shot_group(ranks->split(0, ranks->rank()), {.timeout = std::chrono::milliseconds(300)});
    const AnyView<1> view = View<float, 1>(values.device(), {100});
    ranks->barrier();
    group->all_reduce_sum({view, {}}, stream.stream());
    synchronize(stream.stream());
    group->check();
    ranks->barrier();
    if (ranks->rank() == 1) ranks->barrier();  // comes when rank 0 has given up
    group->all_reduce_sum({view, {}}, stream.stream());
    synchronize(stream.stream());
    const std::string error = error_of([&] { group->check(); });
    const std::string why = ranks->rank() == 0 ? "rank 1 did not come within 0.3 s, or left" : "the other ranks gave up waiting for this one";
    EXPECT_EQ(error, fmt::format("rank {} of 2: one-shot all_reduce_sum (operation 2, 400 bytes) failed: {}", ranks->rank(), why));
    EXPECT_EQ(error_of([&] { group->all_reduce_sum({view, {}}, stream.stream()); }), error);
    if (ranks->rank() == 0) ranks->barrier();
  });
}

TEST_F(LostRank, OneShotGroupAborts) {
  on_all(2, [](std::unique_ptr<Communicator> ranks) {
    DeviceStream stream;
    Buffer<float> values(100);
    const auto group = make_one_shot_group(ranks->split(0, ranks->rank()), {.timeout = std::chrono::seconds(60)});
    const AnyView<1> view = View<float, 1>(values.device(), {100});
    ranks->barrier();
    if (ranks->rank() == 0) {
      group->all_reduce_sum({view, {}}, stream.stream());
      std::thread([&group] { group->abort(); }).join();
      synchronize(stream.stream());
      ranks->barrier();
    } else {
      ranks->barrier();  // comes when rank 0 has left
      group->all_reduce_sum({view, {}}, stream.stream());
      synchronize(stream.stream());
    }
    const std::string error = error_of([&] { group->check(); });
    EXPECT_NE(error.find(ranks->rank() == 0 ? "this rank left its group" : "rank 0 did not come within 60.0 s, or left"), std::string::npos) << error;
  });
}

TEST(OneShotGroup, RefusesMoreRanksThanItsKernelsTake) {
  on_all(kOneShotRanks + 1, [](std::unique_ptr<Communicator> ranks) {
    EXPECT_NE(error_of([&] { make_one_shot_group(std::move(ranks)); }).find("9 ranks are too many"), std::string::npos);
  });
}

}  // namespace
}  // namespace accrete::parallel

#endif
