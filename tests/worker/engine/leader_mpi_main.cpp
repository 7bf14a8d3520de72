// The leader and its followers under mpirun, where each rank is held up in begin() until the others have begun the same step, as a GPU's rank
// may be by a full queue or by NCCL. Long plans must have gone over to all by then: the leader does nothing for them while it is held up.
#include <fmt/format.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <thread>

#include "parallel/mpi_communicator.h"
#include "tests/worker/engine/scripted_executor.h"
#include "worker/engine/leader.h"

namespace accrete::worker {
namespace {

constexpr int64_t kPromptTokens = 60'000;  // a plan of 240 KB
parallel::Communicator* world = nullptr;  // gtest's bodies take no arguments

class HeldUpExecutor final : public ScriptedExecutor {
 public:
  explicit HeldUpExecutor(std::filesystem::path folder) : ScriptedExecutor(0.0, 1), folder_(std::move(folder)) {
    info_.pages = 100'000;
    info_.max_model_len = 2 * kPromptTokens;
  }
  void begin(StepPlan plan) override {
    const uint64_t step = plan.step;
    ScriptedExecutor::begin(std::move(plan));
    std::ofstream(sign_of(step, world->rank())) << "begun";
    for (int rank = 0; rank < world->size(); ++rank) {
      for (int look = 0; look < 1000 && alone_ == 0 && !std::filesystem::exists(sign_of(step, rank)); ++look) {
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
      }
      if (!std::filesystem::exists(sign_of(step, rank))) alone_ = step;
    }
  }
  uint64_t alone() const { return alone_; }  // the first step that some rank did not begin, 0: none

 private:
  std::filesystem::path sign_of(uint64_t step, int rank) const { return folder_ / fmt::format("{}-{}", step, rank); }

  std::filesystem::path folder_;
  uint64_t alone_ = 0;
};

void lead(HeldUpExecutor& executor) {
  Leader::Setup setup;
  setup.model = {kHeads, 1, kVocab, 2 * kPromptTokens, {}};
  setup.options.device = "cuda";  // decides how steps are planned and plans sent; nothing here computes on one
  setup.options.topology.tensor = world->size();
  setup.options.max_num_seqs = 8;
  setup.options.max_num_batched_tokens = kPromptTokens;
  setup.ranks.assign(world->size(), executor.info());
  std::map<RequestId, std::vector<int32_t>> found;
  setup.sink = [&](std::vector<RequestOutput>&& outputs) {
    for (const RequestOutput& output : outputs) {
      for (const TokenOut& token : output.tokens) found[output.id].push_back(token.id);
    }
  };
  Leader leader(std::move(setup), executor, *world);
  for (RequestId id = 1; id <= 4; ++id) {
    Request request;
    request.id = id;
    request.prompt.assign(kPromptTokens / 2 + id, static_cast<int32_t>(id));
    request.max_tokens = 5;
    leader.submit(std::move(request));
  }
  std::thread waiter([&] {
    while (!leader.idle()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    leader.stop();
  });
  leader.run();  // here: MPI is this thread's
  waiter.join();
  ASSERT_EQ(found.size(), 4u);
  for (auto& [id, tokens] : found) {
    ASSERT_EQ(tokens.size(), 5u);
    EXPECT_EQ(tokens[0], next_token(std::vector<int32_t>(kPromptTokens / 2 + id, static_cast<int32_t>(id))));
  }
}

TEST(LeaderOverMpi, PlansAreThereBeforeTheLeaderIsHeldUp) {
  int token = static_cast<int>(getpid());
  world->broadcast(std::as_writable_bytes(std::span(&token, 1)), 0);
  const std::filesystem::path folder = std::filesystem::temp_directory_path() / fmt::format("accrete-leader-{}", token);
  if (world->rank() == 0) std::filesystem::create_directory(folder);
  world->barrier();
  HeldUpExecutor executor(folder);
  if (world->rank() == 0) lead(executor);
  else follow(executor, *world);
  EXPECT_EQ(executor.alone(), 0u) << "rank " << world->rank() << ": another rank did not begin this step";
  world->barrier();
  if (world->rank() == 0) std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace accrete::worker

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  accrete::parallel::MpiSession session;
  const auto group = session.world();
  accrete::worker::world = group.get();
  return RUN_ALL_TESTS();
}
