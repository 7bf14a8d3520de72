// Coordinator: the front of a cluster: HTTP API, RPC port, registry and router, on one I/O thread of its own. main() builds it; it may share a
// process with a worker rank. Thread-safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "net/tls.h"

namespace accrete::coordinator {

struct CoordinatorOptions {
  std::string host = "0.0.0.0";
  uint16_t port = 8000;       // HTTP; 0: any
  std::string rpc_host = "0.0.0.0";
  uint16_t rpc_port = 0;      // leaders and client programs; 0: any
  std::string api_key;        // empty: open
  std::string chat_template;  // empty: the model's own
  size_t max_queued = 1024;
  int max_connections = 4096;
  uint32_t heartbeat_ms = 1000;
  std::chrono::milliseconds hello_patience = std::chrono::seconds(10);  // for a peer of the frames port to say who it is
  std::shared_ptr<net::TlsContext> tls = nullptr;  // of the HTTP port; null: in the clear
};

class Coordinator {
 public:
  // Binds both ports at once and starts to serve; throws std::runtime_error naming a port that is busy.
  explicit Coordinator(const CoordinatorOptions& options);
  ~Coordinator();  // stops at once
  Coordinator(const Coordinator&) = delete;
  Coordinator& operator=(const Coordinator&) = delete;

  uint16_t http_port() const;
  uint16_t rpc_port() const;
  bool serving() const;  // a replica is up and takes requests

  // Refuses new requests; returns when the open ones have ended, after `seconds` at the latest.
  void drain(double seconds);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accrete::coordinator
