// Ranks as threads of one process. Collectives stage each rank's bytes in a slot of its own and meet once; messages go
// through the receiver's mailbox.
#include <fmt/format.h>

#include <cstring>
#include <map>
#include <tuple>

#include "kernels/check.h"
#include "parallel/communicator.h"
#include "parallel/thread_group.h"

namespace accrete::parallel {

namespace {

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(std::shared_ptr<ThreadGroup> group, int rank) : group_(std::move(group)), rank_(rank) {}
  ~ThreadCommunicator() override { group_->leave(rank_); }

  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }

  void all_reduce_sum(std::span<float> values) override {
    const int parity = exchange(std::as_bytes(values));
    for (int from = 0; from < size(); ++from) {
      const auto& slot = group_->slot(parity, from);
      CHECK(slot.size() == values.size_bytes(), slot.size(), values.size_bytes());
      add(reinterpret_cast<const float*>(slot.data()), values, from == 0);
    }
  }

  void all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone) override {
    CHECK(everyone.size() == mine.size() * size(), everyone.size(), mine.size(), size());
    collect(exchange(mine), everyone);
  }

  void gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root) override {
    CHECK(rank_ != root || everyone.size() == mine.size() * size(), everyone.size(), mine.size(), size());
    const int parity = exchange(mine);
    if (rank_ == root) collect(parity, everyone);
  }

  void broadcast(std::span<std::byte> bytes, int root) override {
    const int parity = exchange(rank_ == root ? bytes : std::span<std::byte>());
    if (rank_ == root) return;
    const auto& slot = group_->slot(parity, root);
    CHECK(slot.size() == bytes.size(), slot.size(), bytes.size());
    std::copy(slot.begin(), slot.end(), bytes.begin());
  }

  void barrier() override { exchange({}); }

  void send(std::span<const std::byte> message, int to, int tag) override { group_->post({rank_, to, tag}, message); }
  void flush(const std::function<void()>&) override {}
  std::vector<std::byte> recv(int from, int tag) override { return group_->take({from, rank_, tag}); }
  void recv_into(std::span<std::byte> message, int from, int tag) override {
    const std::vector<std::byte> received = recv(from, tag);
    CHECK(received.size() == message.size(), received.size(), message.size(), tag);
    std::copy(received.begin(), received.end(), message.begin());
  }
  bool poll(int from, int tag) override { return group_->peek({from, rank_, tag}); }

  std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(int exit_code, const std::string& why) override { group_->job().abort(exit_code, why); }

 private:
  // Stages my bytes and returns when all have; the slots of the returned parity stay as they are until my next exchange
  // returns. Two sets of slots make one meeting enough: a slot is written again only after all ranks came to the
  // meeting in between.
  int exchange(std::span<const std::byte> mine) {
    const int parity = static_cast<int>(exchanges_++ & 1);
    group_->slot(parity, rank_).assign(mine.begin(), mine.end());
    group_->meet(exchanges_);
    return parity;
  }

  void collect(int parity, std::span<std::byte> everyone) {
    for (int from = 0; from < size(); ++from) {
      const auto& slot = group_->slot(parity, from);
      CHECK(slot.size() * size() == everyone.size(), slot.size(), everyone.size());
      std::copy(slot.begin(), slot.end(), everyone.begin() + from * slot.size());
    }
  }

  static void add(const float* from, std::span<float> values, bool first) {
    if (first) {
      std::copy(from, from + values.size(), values.begin());
      return;
    }
    for (size_t i = 0; i < values.size(); ++i) values[i] += from[i];
  }

  std::shared_ptr<ThreadGroup> group_;
  int rank_;
  uint64_t exchanges_ = 0;
  int splits_ = 0;
};

std::unique_ptr<Communicator> ThreadCommunicator::split(int color, int key) {
  const std::array<int, 2> mine{color, key};
  std::vector<std::array<int, 2>> all(size());
  all_gather(std::as_bytes(std::span(mine)), std::as_writable_bytes(std::span(all)));
  int members = 0;
  int new_rank = 0;
  for (int from = 0; from < size(); ++from) {
    if (all[from][0] != color) continue;
    ++members;
    if (std::tie(all[from][1], from) < std::tie(key, rank_)) ++new_rank;
  }
  return std::make_unique<ThreadCommunicator>(group_->subgroup({splits_++, color}, members), new_rank);
}

}  // namespace

std::vector<std::unique_ptr<Communicator>> make_threads(int n) {
  CHECK(n >= 1, n);
  const auto group = make_thread_group(n);
  std::vector<std::unique_ptr<Communicator>> ranks;
  for (int rank = 0; rank < n; ++rank) ranks.push_back(std::make_unique<ThreadCommunicator>(group, rank));
  return ranks;
}

}  // namespace accrete::parallel
