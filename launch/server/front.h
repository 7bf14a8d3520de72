// Front: a coordinator running on threads of this process, for `coordinator`, `serve` and a worker job that was given none.
// Owned by the main thread.
#pragma once

#include <memory>
#include <string>

#include "launch/server/server_flags.h"

namespace accrete::launch {

class Front {
 public:
  // Listens at once and answers 503 on /health until a replica has joined. Throws std::runtime_error naming a port that is busy.
  // With --ssl-certfile, load_tls_files() comes before.
  explicit Front(const ServerFlags& flags);
  ~Front();
  Front(const Front&) = delete;
  Front& operator=(const Front&) = delete;

  // HOST:PORT where replicas of this machine join.
  std::string address() const;
  // Takes no new requests and returns when the open ones have ended, after --shutdown-timeout at the latest.
  void drain();
  // The same for when nobody is left to answer: gives clients `seconds` to be told.
  void drain(double seconds);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace accrete::launch
