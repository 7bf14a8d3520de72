// RankWatch: ends an mpirun job that a cut link, a lost host or a frozen process has taken apart. Every rank hears every other one's heartbeat
// over a connection of its own (net/peer_watch.h), whatever its step thread does, and ends the job when one falls silent: both sides of a cut
// end by themselves. It hears along the interfaces that MPI uses, when MPI was told which.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "net/peer_watch.h"
#include "parallel/communicator.h"

namespace accrete::worker {

class RankWatch {
 public:
  // Collective. Ends the job (world.abort) when a rank is silent for `timeout_seconds`; 0 watches nobody. Throws when this rank cannot listen.
  // Borrows `world` for its life.
  RankWatch(parallel::Communicator& world, double timeout_seconds);
  // Not collective, but a rank that has left hears no more of the others: meet at a barrier before.
  ~RankWatch();

 private:
  std::unique_ptr<net::PeerWatch> watch_;
};

// An address of this host, as getifaddrs tells it.
struct HostAddress {
  std::string interface;
  std::string address;
};

// Those that MPI was told to use (btl_tcp_if_include: a comma-separated list of interfaces or of networks like 10.0.0.0/8); all when it was
// told nothing or nothing that this host has.
std::vector<std::string> addresses_for_mpi(const std::vector<HostAddress>& all, const std::string& include);

}  // namespace accrete::worker
