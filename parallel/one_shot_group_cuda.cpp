#include "parallel/one_shot_group.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "kernels/cuda.h"
#include "kernels/device/device_memory.h"
#include "kernels/device/op_trace.h"
#include "parallel/one_shot_memory.h"
#include "parallel/polite_wait.h"

namespace accrete::parallel {
namespace {

using std::chrono::milliseconds;
constexpr int kGoodbyeTag = 1;  // the communicator is the group's own
constexpr milliseconds kGoodbye{5000};

class OneShotRank final : public OneShotGroup {
 public:
  OneShotRank(std::unique_ptr<Communicator> ranks, const OneShotOptions& options)
      : ranks_(std::move(ranks)), timeout_(options.timeout), memory_(*ranks_, options.capacity, error_of([&] { prepare(); })) {
    ref_.rank = ranks_->rank();
    ref_.size = ranks_->size();
    ref_.capacity = options.capacity;
    // A few multiprocessors stay free: blocks of the widest norm take one each, and all have to be resident together.
    const bool fills = options.alone && !memory_.gpus_shared();
    ref_.blocks = fills ? std::clamp(memory_.multiprocessors() - kFree, kOneShotSharedBlocks, kOneShotBlocks) : kOneShotSharedBlocks;
    for (int r = 0; r < ref_.size; ++r) {
      ref_.staged[r] = memory_.staged(r);
      ref_.arrived[r] = memory_.arrived(r);
    }
    ref_.state = state_.as<OneShotState>();
    ref_.report = report();
    ref_.patience_ns = static_cast<uint64_t>(std::chrono::nanoseconds(options.timeout).count());
  }
  ~OneShotRank() override;

  int rank() const override { return ref_.rank; }
  int size() const override { return ref_.size; }
  void all_reduce_sum(const OneShotSum& op, Stream& stream) override {
    check();
    const OpSpan span("one_shot_sum", stream);
    one_shot_sum_cuda(op, ref_, stream);
  }
  void all_reduce_norm(const RmsNorm& op, Stream& stream) override {
    check();
    const OpSpan span("one_shot_norm", stream);
    one_shot_norm_cuda(op, ref_, stream);
  }
  void check() override;
  // Relaxed: kernels poll it, and it orders nothing.
  void abort() override { __atomic_store_n(&report()->stop, 1u, __ATOMIC_RELAXED); }

 private:
  static constexpr int kFree = 4;

  // What this rank does alone. Kernels are loaded everywhere before the ranks meet: ranks of one process would wait for each other's running ones
  // to do it.
  void prepare() {
    one_shot_load_cuda(ranks_->size());
    state_ = DeviceMemory(sizeof(OneShotState));
    report_ = PinnedMemory(sizeof(OneShotReport));
    ACCRETE_CUDA_CHECK(cudaMemset(state_.data(), 0, state_.bytes()));
    ACCRETE_CUDA_CHECK(cudaDeviceSynchronize());
    *report() = {};
  }
  OneShotReport* report() const { return report_.as<OneShotReport>(); }
  // Acquire: pairs with the kernel's release of `broken` after it has written the rest.
  bool broken() const { return __atomic_load_n(&report()->broken, __ATOMIC_ACQUIRE) != 0; }
  bool left() const { return __atomic_load_n(&report()->stop, __ATOMIC_RELAXED) != 0; }
  bool all_unmapped();

  std::unique_ptr<Communicator> ranks_;
  milliseconds timeout_;
  DeviceMemory state_;
  PinnedMemory report_;
  OneShotMemory memory_;  // after these: what fails with them is told while it is made
  OneShotRef ref_;
};

void OneShotRank::check() {
  const std::string who = fmt::format("rank {} of {}: ", rank(), size());
  if (!broken()) {
    if (left()) throw CommError(who + "this rank left its one-shot group (abort)");
    return;
  }
  const OneShotReport& what = *report();
  std::string why = fmt::format("rank {} did not come within {:.1f} s, or left", what.blamed, static_cast<double>(timeout_.count()) / 1000);
  if (what.blamed == rank()) why = left() ? "this rank left its group (abort)" : "the other ranks gave up waiting for this one";
  throw CommError(fmt::format("{}one-shot {} (operation {}, {} bytes) failed: {}", who, what.kind == OneShotKind::sum ? "all_reduce_sum" : "all_reduce_norm",
                              what.operation, what.bytes, why));
}

// Tells the other ranks that their memory is mapped here no more, and waits until they have said the same of this rank's.
bool OneShotRank::all_unmapped() {
  for (int r = 0; r < size(); ++r) {
    if (r != rank()) ranks_->send({}, r, kGoodbyeTag);
  }
  const auto end = std::chrono::steady_clock::now() + kGoodbye;
  PoliteWait wait(Patience{std::chrono::microseconds(200)});
  for (int r = 0; r < size();) {
    if (r == rank() || ranks_->poll(r, kGoodbyeTag)) {
      if (r != rank()) ranks_->recv(r, kGoodbyeTag);
      ++r;
    } else if (std::chrono::steady_clock::now() > end) {
      return false;
    } else {
      wait.pause();
    }
  }
  return true;
}

OneShotRank::~OneShotRank() {
  cudaDeviceSynchronize();  // its own kernels read the others' memory; they end within the timeout
  memory_.unmap();
  if (broken() || left()) return;
  try {
    if (all_unmapped()) memory_.release();
  } catch (const CommError&) {
    // A lost peer: the memory stays.
  }
}

}  // namespace

std::unique_ptr<OneShotGroup> make_one_shot_group(std::unique_ptr<Communicator> ranks, OneShotOptions options) {
  if (ranks->size() > kOneShotRanks) {
    throw CommError(fmt::format("{} ranks are too many for the one-shot all-reduce, which takes {}", ranks->size(), kOneShotRanks));
  }
  return std::make_unique<OneShotRank>(std::move(ranks), options);
}

}  // namespace accrete::parallel
