// LeaderLink: a replica leader's connection to its coordinator, without a word about models. Runs on a thread of its own; start, send and stop
// are thread-safe, callbacks come from that thread. After a broken connection it tries again for a bounded time, then gives up for good.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "net/proto/accrete.pb.h"

namespace accrete::net {

class LeaderLink {
 public:
  struct Options {
    std::string address;             // HOST:PORT of the coordinator's RPC port
    rpc::Hello hello;                // role, versions and so on are the caller's
    double reconnect_seconds = 10.0;
  };
  struct Callbacks {
    std::function<void(const rpc::Welcome&)> on_connected;
    std::function<void(rpc::Frame&&)> on_frame;            // Submit, Cancel, Drain, Resume
    std::function<void(const std::string&)> on_broken;     // the connection is gone: requests of before are void; trying again
    std::function<void(const std::string&)> on_lost;       // final: refused, or not reached within reconnect_seconds
  };
  LeaderLink(Options options, Callbacks callbacks);
  ~LeaderLink();  // stops
  LeaderLink(const LeaderLink&) = delete;
  LeaderLink& operator=(const LeaderLink&) = delete;

  void start();
  // Queued while connected, dropped otherwise.
  void send(rpc::Frame frame);
  // Writes what is queued for at most a second, closes and joins. No callback comes after it.
  void stop();

 private:
  struct State;
  std::shared_ptr<State> state_;
};

// "HOST:PORT" taken apart; throws std::invalid_argument naming `what` when it is none.
struct HostPort {
  std::string host;
  std::string port;
};
HostPort parse_address(const std::string& address, const std::string& what);

}  // namespace accrete::net
