// What keeps one rank from starting reaches all of its replica, and nobody waits for it in vain.
#include "worker/service/rank.h"

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <thread>

#include "worker/engine/start_errors.h"

namespace accrete::worker {
namespace {

using Communicators = std::vector<std::unique_ptr<parallel::Communicator>>;

// body(communicator) on a thread for each rank; what each has thrown as a StartError, "" for nothing. A rank that would wait for ever ends by
// the test's time limit.
std::vector<std::string> start_errors(int ranks, const std::function<void(parallel::Communicator&)>& body) {
  Communicators communicators = parallel::make_threads(ranks);
  std::vector<std::string> errors(ranks);
  std::vector<std::thread> threads;
  for (int rank = 0; rank < ranks; ++rank) {
    threads.emplace_back([&, rank] {
      try {
        body(*communicators[rank]);
      } catch (const StartError& error) {
        errors[rank] = error.what();
      } catch (const std::exception& error) {
        errors[rank] = std::string("not a StartError: ") + error.what();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  return errors;
}

// Dummy weights, of which some rank cannot read one.
class BrokenSource : public TensorSource {
 public:
  BrokenSource(const TensorSource& whole, std::string error) : whole_(whole), error_(std::move(error)) {}
  const ModelConfig& config() const override { return whole_.config(); }
  std::pair<int64_t, int64_t> shape(std::string_view name) const override { return whole_.shape(name); }
  bool has(std::string_view name) const override { return whole_.has(name); }
  void read(std::string_view name, const Slice& slice, DType dtype, void* dst) const override {
    if (!error_.empty()) throw ModelError(error_);
    whole_.read(name, slice, dtype, dst);
  }
  rpc::TokenizerSpec tokenizer() const override { return whole_.tokenizer(); }
  std::string hash() const override { return whole_.hash(); }
  std::string describe() const override { return whole_.describe(); }
  int64_t bytes_on_disk() const override { return 0; }

 private:
  const TensorSource& whole_;
  std::string error_;  // empty: none
};

EngineOptions four_ranks() {
  EngineOptions options;
  options.model = "tiny";
  options.load_format = "dummy";
  options.device = "cpu";
  options.topology = {2, 2, 1};
  options.max_num_seqs = 2;
  options.max_num_batched_tokens = 16;
  options.max_model_len = 64;
  options.kv_cache_memory_bytes = 4 << 20;
  options.cpu_threads = 1;
  return options;
}

// Starts four ranks whose sources fail with these texts.
std::vector<std::string> start(const std::vector<std::string>& errors) {
  const EngineOptions options = four_ranks();
  const auto whole = open_model(options.model, {.load_format = options.load_format, .adapter = "", .seed = 0});
  return start_errors(4, [&](parallel::Communicator& replica) {
    const BrokenSource source(*whole, errors[replica.rank()]);
    const Rank rank(source, options, replica, {4, replica.rank()});
    EXPECT_EQ(rank.infos().size(), 4u);
  });
}

TEST(rank, starts_when_nothing_fails) { EXPECT_EQ(start({"", "", "", ""}), std::vector<std::string>(4)); }

TEST(rank, an_error_of_one_is_told_by_all) {
  EXPECT_EQ(start({"", "", "shard.safetensors: truncated", ""}), std::vector<std::string>(4, "rank 2: shard.safetensors: truncated"));
}

TEST(rank, errors_of_several_are_joined_and_equal_ones_told_once) {
  EXPECT_EQ(start({"GPU memory", "truncated", "", "GPU memory"}), std::vector<std::string>(4, "ranks 0, 3: GPU memory; rank 1: truncated"));
}

// As an executor does that shares several of its steps: nobody enters the barrier behind the step that failed.
TEST(run_shared, ranks_stop_before_the_step_after_the_one_that_failed) {
  const auto errors = start_errors(3, [](parallel::Communicator& ranks) {
    run_shared(ranks, [&] {
      run_shared(ranks, [] {});
      run_shared(ranks, [&] {
        if (ranks.rank() == 1) throw std::runtime_error("out of memory");
      });
      ranks.barrier();
      ADD_FAILURE() << "rank " << ranks.rank() << " went on";
    });
  });
  EXPECT_EQ(errors, std::vector<std::string>(3, "rank 1: out of memory"));
}

TEST(run_shared, a_slow_rank_is_waited_for) {
  const auto errors = start_errors(3, [](parallel::Communicator& ranks) {
    run_shared(ranks, [&] {
      if (ranks.rank() == 2) std::this_thread::sleep_for(std::chrono::milliseconds(300));
      if (ranks.rank() == 2) throw std::runtime_error("late");
    });
  });
  EXPECT_EQ(errors, std::vector<std::string>(3, "rank 2: late"));
}

TEST(share_error, long_texts_are_cut) {
  const auto errors = start_errors(2, [](parallel::Communicator& ranks) { share_error(ranks, ranks.rank() == 0 ? std::string(5000, 'x') : ""); });
  EXPECT_EQ(errors, std::vector<std::string>(2, "rank 0: " + std::string(1023, 'x')));
}

}  // namespace
}  // namespace accrete::worker
