#include "parallel/mpi_requests.h"

#include <fmt/format.h>

#include <climits>

#include "parallel/communicator.h"

namespace accrete::parallel {

namespace {

constexpr size_t kSpareBuffers = 16;

}  // namespace

void check_mpi(int code, const char* doing) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING];
  int length = 0;
  MPI_Error_string(code, text, &length);
  throw CommError(fmt::format("MPI {}: {} (a rank is lost, or its version of accrete is another)", doing,
                              std::string(text, length)));
}

int mpi_count(size_t bytes, const char* doing) {
  if (bytes > INT_MAX)
    throw CommError(fmt::format("MPI {}: a message of {} bytes; the most is {}", doing, bytes, INT_MAX));
  return static_cast<int>(bytes);
}

void MpiRequests::send(std::span<const std::byte> bytes, int to, int tag) {
  MPI_Request& request = requests_.emplace_back(MPI_REQUEST_NULL);
  check_mpi(MPI_Isend(bytes.data(), mpi_count(bytes.size(), "send"), MPI_BYTE, to, tag, comm_, &request), "send");
}

void MpiRequests::recv(std::span<std::byte> bytes, int from, int tag) {
  MPI_Request& request = requests_.emplace_back(MPI_REQUEST_NULL);
  check_mpi(MPI_Irecv(bytes.data(), mpi_count(bytes.size(), "receive"), MPI_BYTE, from, tag, comm_, &request),
            "receive");
}

void MpiRequests::finish() {
  PoliteWait wait(patience_);
  for (;;) {
    int done = 0;
    check_mpi(MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &done, MPI_STATUSES_IGNORE),
              "collective operation");
    if (done) break;
    wait.pause();
  }
  requests_.clear();
}

void MpiOutbox::send(std::span<const std::byte> message, int to, int tag, MPI_Comm comm) {
  Pending next{MPI_REQUEST_NULL, {}};
  if (!spare_.empty()) {
    next.message = std::move(spare_.back());
    spare_.pop_back();
  }
  next.message.assign(message.begin(), message.end());
  check_mpi(MPI_Isend(next.message.data(), mpi_count(message.size(), "send"), MPI_BYTE, to, tag, comm, &next.request),
            "send");
  pending_.push_back(std::move(next));
}

void MpiOutbox::reap() {
  const auto delivered = [&](Pending& pending) {
    int done = 0;
    check_mpi(MPI_Test(&pending.request, &done, MPI_STATUS_IGNORE), "send");
    if (done && spare_.size() < kSpareBuffers) spare_.push_back(std::move(pending.message));
    return done != 0;
  };
  while (!pending_.empty() && delivered(pending_.front())) pending_.pop_front();
  // A slow receiver at the front must not hold up the buffers behind it for ever; but a look at all of a long queue is
  // dear.
  if (++looks_ < pending_.size()) return;
  looks_ = 0;
  std::erase_if(pending_, delivered);
}

void MpiOutbox::abandon() {
  if (!pending_.empty()) new std::deque<Pending>(std::move(pending_));
  pending_.clear();
}

}  // namespace accrete::parallel
