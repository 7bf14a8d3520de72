// Errors of start-up that all ranks of a replica learn of: a rank that fails alone would leave its peers waiting in their next collective
// operation until it times out, and their errors would hide its own. Thread-safe: a rank's calls touch its communicator alone.
#pragma once

#include <functional>
#include <stdexcept>
#include <string>

#include "parallel/communicator.h"

namespace accrete::worker {

// The same on every rank of the replica, naming the ranks that failed and why: "rank 1: no such tensor; ranks 2, 3: GPU memory: ...".
struct StartError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Collective over `ranks`: waits for all of them, however long they take. why: what went wrong here, at most 1 KiB of it is told; empty: nothing.
// Throws StartError on every rank when any has failed.
void share_error(parallel::Communicator& ranks, const std::string& why);

// Runs this rank's `work`, then shares how it ended. A StartError out of `work` was shared already and passes.
void run_shared(parallel::Communicator& ranks, const std::function<void()>& work);

}  // namespace accrete::worker
