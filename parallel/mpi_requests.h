// Small pieces under the MPI communicator: errors as CommError, groups of requests waited for politely, sends in
// flight.
#pragma once

#include <mpi.h>

#include <cstddef>
#include <deque>
#include <span>
#include <vector>

#include "parallel/polite_wait.h"

namespace accrete::parallel {

// Throws CommError when `code` is not MPI_SUCCESS.
void check_mpi(int code, const char* doing);
// A byte count as MPI takes it; throws CommError from 2 GiB on.
int mpi_count(size_t bytes, const char* doing);

// The requests of one collective operation: start some, then finish all.
class MpiRequests {
 public:
  MpiRequests(MPI_Comm comm, const Patience& patience) : comm_(comm), patience_(patience) {}

  void send(std::span<const std::byte> bytes, int to, int tag);
  void recv(std::span<std::byte> bytes, int from, int tag);
  void finish();

 private:
  MPI_Comm comm_;
  Patience patience_;
  std::vector<MPI_Request> requests_;
};

// Copies of messages that MPI still reads from. Their buffers are used again.
class MpiOutbox {
 public:
  // Starts a send of a copy of `message`.
  void send(std::span<const std::byte> message, int to, int tag, MPI_Comm comm);
  // Drops what has been delivered; drives MPI's progress.
  void reap();
  bool empty() const { return pending_.empty(); }
  // Leaves the buffers of undelivered messages to MPI for ever: for the end of a job that nobody listens to any more.
  void abandon();

 private:
  struct Pending {
    MPI_Request request;
    std::vector<std::byte> message;
  };
  std::deque<Pending> pending_;
  size_t looks_ = 0;  // calls of reap since it last went through the whole queue
  std::vector<std::vector<std::byte>> spare_;
};

}  // namespace accrete::parallel
