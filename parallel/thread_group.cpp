#include "parallel/thread_group.h"

#include <fmt/format.h>

#include <thread>

#include "kernels/check.h"
#include "parallel/communicator.h"

namespace accrete::parallel {

namespace {

// About 20 us of spinning where every rank has a core; next to none where a spinning rank would keep the awaited one
// from running.
int spins_for(int ranks) {
  return ranks <= static_cast<int>(std::thread::hardware_concurrency()) ? 600 : 10;
}

}  // namespace

void Parking::relax(int spin) {
  constexpr int kSpinsBetweenYields = 16;
  if (spin % kSpinsBetweenYields == kSpinsBetweenYields - 1) std::this_thread::yield();
#if defined(__x86_64__)
  else
    __builtin_ia32_pause();
#endif
}

void ThreadJob::abort(int exit_code, const std::string& why) {
  std::vector<std::weak_ptr<ThreadGroup>> groups;
  {
    std::lock_guard lock(mutex_);
    if (aborted()) return;
    why_ = fmt::format("aborted with code {}: {}", exit_code, why);
    aborted_.store(true, std::memory_order_release);
    groups = groups_;
  }
  for (const auto& weak : groups)
    if (const auto group = weak.lock()) group->wake_all();
}

std::string ThreadJob::why() const {
  std::lock_guard lock(mutex_);
  return why_;
}

void ThreadJob::add(const std::shared_ptr<ThreadGroup>& group) {
  std::lock_guard lock(mutex_);
  std::erase_if(groups_, [](const auto& weak) { return weak.expired(); });
  groups_.push_back(group);
}

std::optional<std::vector<std::byte>> ThreadGroup::Mailbox::pop(int from, int tag) {
  std::lock_guard lock(mutex);
  const auto queue = queues.find({from, tag});
  if (queue == queues.end() || queue->second.empty()) return std::nullopt;
  std::vector<std::byte> message = std::move(queue->second.front());
  queue->second.pop_front();
  return message;
}

ThreadGroup::ThreadGroup(int size, std::shared_ptr<ThreadJob> job)
    : size_(size), job_(std::move(job)), left_(size), meeting_(spins_for(size)) {
  for (auto& slots : slots_) slots.resize(size);
  for (int rank = 0; rank < size; ++rank) mailboxes_.push_back(std::make_unique<Mailbox>(spins_for(size)));
}

void ThreadGroup::fail(const std::string& doing) const {
  if (job_->aborted()) throw CommError(fmt::format("{}: {}", doing, job_->why()));
  throw CommError(fmt::format("{}: a rank has left the group", doing));
}

void ThreadGroup::meet(uint64_t count) {
  const uint64_t target = count * size_;
  const auto complete = [&] { return met_.load(std::memory_order_acquire) >= target; };
  if (met_.fetch_add(1, std::memory_order_acq_rel) + 1 == target) {
    meeting_.wake();
    return;
  }
  meeting_.wait([&] { return complete() || job_->aborted() || leavers_.load(std::memory_order_acquire) > 0; });
  if (!complete()) fail("collective operation");
}

void ThreadGroup::post(const Envelope& envelope, std::span<const std::byte> message) {
  CHECK(envelope.to >= 0 && envelope.to < size_, envelope.to, size_);
  const bool lost = stopped(envelope.to);
  if (lost) fail(fmt::format("send to rank {}", envelope.to));
  Mailbox& box = *mailboxes_[envelope.to];
  {
    std::lock_guard lock(box.mutex);
    box.queues[{envelope.from, envelope.tag}].emplace_back(message.begin(), message.end());
  }
  box.arrivals.fetch_add(1, std::memory_order_release);
  box.parking.wake();
}

std::vector<std::byte> ThreadGroup::take(const Envelope& envelope) {
  CHECK(envelope.from >= 0 && envelope.from < size_, envelope.from, size_);
  Mailbox& box = *mailboxes_[envelope.to];
  for (;;) {
    const uint64_t seen = box.arrivals.load(std::memory_order_acquire);
    const bool lost =
        stopped(envelope.from);  // asked before the look: what the sender sent before it left still counts
    if (auto message = box.pop(envelope.from, envelope.tag)) return std::move(*message);
    if (lost) fail(fmt::format("recv from rank {}, tag {}", envelope.from, envelope.tag));
    box.parking.wait([&] { return box.arrivals.load(std::memory_order_acquire) != seen || stopped(envelope.from); });
  }
}

bool ThreadGroup::peek(const Envelope& envelope) {
  CHECK(envelope.from >= 0 && envelope.from < size_, envelope.from, size_);
  if (job_->aborted()) fail("poll");
  Mailbox& box = *mailboxes_[envelope.to];
  std::lock_guard lock(box.mutex);
  const auto queue = box.queues.find({envelope.from, envelope.tag});
  return queue != box.queues.end() && !queue->second.empty();
}

void ThreadGroup::leave(int rank) {
  left_[rank].store(true, std::memory_order_release);
  leavers_.fetch_add(1, std::memory_order_release);
  wake_all();
}

std::shared_ptr<ThreadGroup> ThreadGroup::subgroup(SplitKey key, int members) {
  std::lock_guard lock(split_mutex_);
  Subgroup& entry = subgroups_[key];
  if (!entry.group) {
    entry.group = std::make_shared<ThreadGroup>(members, job_);
    job_->add(entry.group);
  }
  const auto group = entry.group;
  if (++entry.takers == members) subgroups_.erase(key);
  return group;
}

void ThreadGroup::wake_all() {
  meeting_.wake();
  for (const auto& box : mailboxes_) box->parking.wake();
}

std::shared_ptr<ThreadGroup> make_thread_group(int size) {
  const auto job = std::make_shared<ThreadJob>();
  const auto group = std::make_shared<ThreadGroup>(size, job);
  job->add(group);
  return group;
}

}  // namespace accrete::parallel
