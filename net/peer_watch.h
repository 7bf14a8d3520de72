// PeerWatch: members of a group tell each other that they live, each over a connection of its own to each other one, from a thread of its
// own: what the rest of the process computes or waits for does not matter, however long it takes. A peer that stays silent for longer than
// the patience is lost: its process, its host or the network between is gone, which TCP alone would not tell for minutes.
// A connection that breaks is made again; only silence counts. Owned by one thread; on_lost comes from the watch's thread, once.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace accrete::net {

class PeerWatch {
 public:
  struct Options {
    int self = 0;        // this member's place in the group
    uint64_t token = 0;  // the group's secret: connections without it are closed
    std::chrono::milliseconds patience{8000};
    std::chrono::milliseconds beat{1000};
  };
  struct Peer {
    std::vector<std::string> addresses;  // tried in this order
    uint16_t port = 0;
  };
  struct Loss {
    int peer = 0;
    bool met = false;  // false: never heard of at all, so perhaps a firewall stands between
    std::chrono::milliseconds silent{0};
  };
  using OnLost = std::function<void(const Loss&)>;

  // Listens on a free port of all addresses. Throws std::runtime_error.
  explicit PeerWatch(const Options& options);
  // Tells the peers that this member leaves, which is no loss; leaves without a word while an exception is on its way.
  ~PeerWatch();

  uint16_t port() const;
  // `peers`: of every member, this one included, in the order of their places. The patience begins here.
  void start(std::vector<Peer> peers, OnLost on_lost);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accrete::net
