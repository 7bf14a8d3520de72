#include "worker/service/rank_watch.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <boost/asio/ip/network_v4.hpp>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <random>
#include <sstream>

namespace accrete::worker {
namespace {

using std::chrono::milliseconds;

constexpr size_t kMaxAddresses = 16;

// Where a rank can be reached, as the ranks tell each other over MPI.
struct RankCard {
  std::array<char, 64> host{};
  std::array<std::array<char, INET6_ADDRSTRLEN>, kMaxAddresses> addresses{};
  uint16_t port = 0;
};

template <size_t N>
void put(std::array<char, N>& field, const std::string& text) {
  std::strncpy(field.data(), text.c_str(), N - 1);
}

std::vector<HostAddress> addresses_of_this_host() {
  std::vector<HostAddress> found;
  ifaddrs* list = nullptr;
  if (getifaddrs(&list) != 0) return found;
  for (const ifaddrs* each = list; each != nullptr; each = each->ifa_next) {
    if (each->ifa_addr == nullptr || (each->ifa_flags & IFF_UP) == 0 || (each->ifa_flags & IFF_LOOPBACK) != 0) continue;
    const int family = each->ifa_addr->sa_family;
    const void* address = nullptr;
    if (family == AF_INET) address = &reinterpret_cast<const sockaddr_in*>(each->ifa_addr)->sin_addr;
    if (family == AF_INET6) {
      const in6_addr& long_one = reinterpret_cast<const sockaddr_in6*>(each->ifa_addr)->sin6_addr;
      if (!IN6_IS_ADDR_LINKLOCAL(&long_one)) address = &long_one;
    }
    std::array<char, INET6_ADDRSTRLEN> text{};
    if (address != nullptr && inet_ntop(family, address, text.data(), text.size()) != nullptr)
      found.push_back({each->ifa_name, text.data()});
  }
  freeifaddrs(list);
  return found;
}

bool included(const HostAddress& one, const std::string& wanted) {
  if (wanted.find('/') == std::string::npos) return one.interface == wanted;
  boost::system::error_code bad_network, bad_address;
  const auto network = boost::asio::ip::make_network_v4(wanted, bad_network);
  const auto address = boost::asio::ip::make_address_v4(one.address, bad_address);
  if (bad_network || bad_address) return false;
  return boost::asio::ip::network_v4(address, network.prefix_length()).canonical() == network.canonical();
}

RankCard own_card(uint16_t port) {
  RankCard card;
  card.port = port;
  gethostname(card.host.data(), card.host.size() - 1);
  const char* include = std::getenv("OMPI_MCA_btl_tcp_if_include");
  const std::vector<std::string> addresses = addresses_for_mpi(addresses_of_this_host(), include == nullptr ? "" : include);
  for (size_t i = 0; i < std::min(addresses.size(), kMaxAddresses); ++i) put(card.addresses[i], addresses[i]);
  return card;
}

net::PeerWatch::Peer peer_of(const RankCard& card, const RankCard& mine) {
  net::PeerWatch::Peer peer;
  peer.port = card.port;
  for (const auto& address : card.addresses) {
    if (address.front() != '\0') peer.addresses.push_back(address.data());
  }
  if (std::strcmp(card.host.data(), mine.host.data()) == 0) peer.addresses.push_back("127.0.0.1");
  return peer;
}

std::string told(const net::PeerWatch::Loss& loss, const RankCard& card) {
  const double seconds = std::chrono::duration<double>(loss.silent).count();
  if (loss.met) {
    return fmt::format("rank {} on {} has been silent for {:.1f} s: its process, its host or the network between is gone (--rank-timeout)",
                       loss.peer, card.host.data(), seconds);
  }
  return fmt::format("rank {} on {} could not be reached on port {} of {} within {:.1f} s: hosts of a job must reach each other's ports; "
                     "--rank-timeout 0 watches no rank",
                     loss.peer, card.host.data(), card.port, card.addresses.front().data(), seconds);
}

uint64_t shared_token(parallel::Communicator& world) {
  std::random_device random;
  uint64_t token = static_cast<uint64_t>(random()) << 32 | random();
  world.broadcast(std::as_writable_bytes(std::span(&token, 1)), 0);
  return token;
}

}  // namespace

std::vector<std::string> addresses_for_mpi(const std::vector<HostAddress>& all, const std::string& include) {
  std::vector<std::string> chosen;
  std::istringstream list(include);
  for (std::string wanted; std::getline(list, wanted, ',');) {
    for (const HostAddress& one : all) {
      if (included(one, wanted)) chosen.push_back(one.address);
    }
  }
  if (chosen.empty()) {
    for (const HostAddress& one : all) chosen.push_back(one.address);
  }
  return chosen;
}

RankWatch::RankWatch(parallel::Communicator& world, double timeout_seconds) {
  if (timeout_seconds <= 0.0 || world.size() == 1) return;
  net::PeerWatch::Options options;
  options.self = world.rank();
  options.token = shared_token(world);
  options.patience = milliseconds(static_cast<int64_t>(timeout_seconds * 1000.0));
  options.beat = std::clamp(options.patience / 4, milliseconds(1), milliseconds(1000));
  watch_ = std::make_unique<net::PeerWatch>(options);
  const RankCard mine = own_card(watch_->port());
  std::vector<RankCard> cards(world.size());
  world.all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(cards)));
  std::vector<net::PeerWatch::Peer> peers;
  for (const RankCard& card : cards) peers.push_back(peer_of(card, mine));
  watch_->start(std::move(peers), [&world, cards = std::move(cards)](const net::PeerWatch::Loss& loss) {
    world.abort(1, told(loss, cards[loss.peer]));
  });
}

RankWatch::~RankWatch() = default;

}  // namespace accrete::worker
