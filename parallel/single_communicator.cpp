// A group of one: collectives are copies or nothing; messages to itself wait in a queue.
#include <fmt/format.h>

#include <deque>
#include <map>

#include "kernels/check.h"
#include "parallel/communicator.h"

namespace accrete::parallel {

namespace {

class SingleCommunicator final : public Communicator {
 public:
  int rank() const override { return 0; }
  int size() const override { return 1; }

  void all_reduce_sum(std::span<float>) override { check_alive(); }
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone) override {
    CHECK(everyone.size() == mine.size(), everyone.size(), mine.size());
    check_alive();
    std::copy(mine.begin(), mine.end(), everyone.begin());
  }
  void gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root) override {
    CHECK(root == 0, root);
    all_gather(mine, everyone);
  }
  void broadcast(std::span<std::byte>, int root) override {
    CHECK(root == 0, root);
    check_alive();
  }
  void barrier() override { check_alive(); }

  void send(std::span<const std::byte> message, int to, int tag) override {
    CHECK(to == 0, to);
    check_alive();
    messages_[tag].emplace_back(message.begin(), message.end());
  }
  void flush(const std::function<void()>&) override { check_alive(); }
  // Nobody else could send it later, so a missing message is an error, not a wait.
  std::vector<std::byte> recv(int from, int tag) override {
    if (!poll(from, tag)) throw CommError(fmt::format("recv from rank 0, tag {}: the only rank waits for itself", tag));
    std::vector<std::byte> message = std::move(messages_[tag].front());
    messages_[tag].pop_front();
    return message;
  }
  void recv_into(std::span<std::byte> message, int from, int tag) override {
    const std::vector<std::byte> received = recv(from, tag);
    CHECK(received.size() == message.size(), received.size(), message.size(), tag);
    std::copy(received.begin(), received.end(), message.begin());
  }
  bool poll(int from, int tag) override {
    CHECK(from == 0, from);
    check_alive();
    return !messages_[tag].empty();
  }

  std::unique_ptr<Communicator> split(int, int) override {
    check_alive();
    return make_single();
  }
  void abort(int exit_code, const std::string& why) override {
    aborted_ = fmt::format("aborted with code {}: {}", exit_code, why);
  }

 private:
  void check_alive() const {
    if (!aborted_.empty()) throw CommError(aborted_);
  }

  std::map<int, std::deque<std::vector<std::byte>>> messages_;  // by tag
  std::string aborted_;
};

}  // namespace

std::unique_ptr<Communicator> make_single() {
  return std::make_unique<SingleCommunicator>();
}

}  // namespace accrete::parallel
