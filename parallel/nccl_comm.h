// NcclComm: one ncclComm_t that is never waited for without bound. Creation, settling after each call and the end all poll a non-blocking
// communicator; whoever gives up calls abandon. Not thread-safe, its owner serialises the calls, but for stop_waiting. Builds with NCCL only.
#pragma once

#include <nccl.h>

#include <atomic>
#include <chrono>
#include <optional>
#include <string>

#include "parallel/communicator.h"

namespace accrete::parallel {

class NcclComm {
 public:
  // Collective over `ranks`; throws CommError.
  NcclComm(Communicator& ranks, std::chrono::milliseconds timeout);
  // Ends the communicator in order when all is well, else abandons it. Waits a few seconds at most.
  ~NcclComm();
  NcclComm(const NcclComm&) = delete;
  NcclComm& operator=(const NcclComm&) = delete;

  ncclComm_t get() const { return comm_; }
  // Waits until a call that gave `result` is under way on the device; what went wrong, if anything.
  std::optional<std::string> settle(ncclResult_t result);
  // From any thread: settle, under way or later, returns at once.
  void stop_waiting() { stopped_.store(true, std::memory_order_relaxed); }  // relaxed: it only ends a loop
  // What NCCL's threads have noticed since, e.g. a peer that closed its connection.
  std::optional<std::string> error() const;
  // ncclCommAbort on a thread of its own, at once for the kernels on the device; waits a second at most for the rest. Afterwards get() is
  // null.
  void abandon();

 private:
  ncclResult_t settled(ncclResult_t result, std::chrono::milliseconds limit) const;
  std::string text(ncclResult_t result) const;
  // Runs `end` on the communicator, which it owns from then on, for at most `limit`.
  void finish(ncclResult_t (*end)(ncclComm_t), std::chrono::milliseconds limit);

  ncclComm_t comm_ = nullptr;
  std::chrono::milliseconds timeout_;
  int device_ = 0;
  std::atomic<bool> stopped_{false};
};

}  // namespace accrete::parallel
