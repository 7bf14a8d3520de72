// ThreadGroup: what the ranks of one group of threads share: staging slots, a meeting counter, a mailbox for each rank.
// ThreadJob: what all groups split from one make_threads share: whether the job was aborted. Both are thread-safe.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <vector>

namespace accrete::parallel {

class ThreadGroup;

class ThreadJob {
 public:
  void abort(int exit_code, const std::string& why);  // the first reason stays
  bool aborted() const { return aborted_.load(std::memory_order_acquire); }
  std::string why() const;
  void add(const std::shared_ptr<ThreadGroup>& group);

 private:
  mutable std::mutex mutex_;
  std::string why_;
  std::vector<std::weak_ptr<ThreadGroup>> groups_;
  std::atomic<bool> aborted_{false};  // released after why_ is written
};

// Waits for a condition on atomics: spins a little, letting others run now and then, and sleeps until wake().
class Parking {
 public:
  explicit Parking(int spins) : spins_(spins) {}
  template <class Ready>
  void wait(const Ready& ready) {
    for (int i = 0; i < spins_; ++i) {
      if (ready()) return;
      relax(i);
    }
    std::unique_lock lock(mutex_);
    changed_.wait(lock, ready);
  }
  // Call after changing what a waiter's condition reads. Taking the mutex closes the gap between its check and its
  // sleep.
  void wake() {
    { std::lock_guard lock(mutex_); }
    changed_.notify_all();
  }

 private:
  static void relax(int spin);

  int spins_;
  std::mutex mutex_;
  std::condition_variable changed_;
};

class ThreadGroup : public std::enable_shared_from_this<ThreadGroup> {
 public:
  struct Envelope {
    int from;
    int to;
    int tag;
  };
  struct SplitKey {
    int count;  // which of the group's splits
    int color;
    auto operator<=>(const SplitKey&) const = default;
  };

  ThreadGroup(int size, std::shared_ptr<ThreadJob> job);

  int size() const { return size_; }
  ThreadJob& job() { return *job_; }
  std::vector<std::byte>& slot(int parity, int rank) { return slots_[parity][rank]; }

  // Returns when every rank has called it `count` times. Throws CommError when one left or the job was aborted before.
  void meet(uint64_t count);
  void post(const Envelope& envelope, std::span<const std::byte> message);
  std::vector<std::byte> take(const Envelope& envelope);
  bool peek(const Envelope& envelope);
  // The rank takes part no more: whoever waits for it gets a CommError.
  void leave(int rank);
  // The group of a split; made by the first member that asks.
  std::shared_ptr<ThreadGroup> subgroup(SplitKey key, int members);
  void wake_all();

 private:
  struct Mailbox {
    explicit Mailbox(int spins) : parking(spins) {}
    std::optional<std::vector<std::byte>> pop(int from, int tag);

    std::mutex mutex;
    std::map<std::pair<int, int>, std::deque<std::vector<std::byte>>> queues;  // by (from, tag)
    std::atomic<uint64_t> arrivals{0};                                         // released after a message was queued
    Parking parking;
  };
  struct Subgroup {
    std::shared_ptr<ThreadGroup> group;
    int takers = 0;
  };
  bool stopped(int rank) const { return job_->aborted() || left_[rank].load(std::memory_order_acquire); }
  [[noreturn]] void fail(const std::string& doing) const;

  int size_;
  std::shared_ptr<ThreadJob> job_;
  std::vector<std::vector<std::byte>>
      slots_[2];                         // [parity][rank]; written by that rank before it meets, read by all after
  std::atomic<uint64_t> met_{0};         // calls of meet; acq_rel: it publishes the slots of all who came
  std::vector<std::atomic<bool>> left_;  // by rank
  std::atomic<int> leavers_{0};
  Parking meeting_;
  std::vector<std::unique_ptr<Mailbox>> mailboxes_;
  std::mutex split_mutex_;
  std::map<SplitKey, Subgroup> subgroups_;
};

std::shared_ptr<ThreadGroup> make_thread_group(int size);

}  // namespace accrete::parallel
