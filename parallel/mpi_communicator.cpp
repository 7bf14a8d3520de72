#include "parallel/mpi_communicator.h"

#include <fmt/format.h>
#include <mpi.h>
#include <sched.h>

#include <algorithm>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <mutex>
#include <thread>

#include "kernels/check.h"
#include "parallel/mpi_abort.h"
#include "parallel/mpi_requests.h"
#include "parallel/topology.h"

namespace accrete::parallel {

namespace {

// Tags of the collective operations, on a communicator of their own. MPI keeps messages of one pair in order, so one of
// each suffices.
enum CollectiveTag : int { kSum, kSummed, kGather, kBroadcast, kArrive, kDepart };

// From here on each rank sums a part for all instead of everything for itself: fewer bytes move, one round trip more.
constexpr size_t kPartedSumBytes = 64 << 10;

// MPI sends messages up to about this size at once; longer ones need the sender's attention until the receiver has
// come.
constexpr size_t kEagerBytes = 4 << 10;

int cores() {
  cpu_set_t set;
  return sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
}

class MpiCommunicator final : public Communicator {
 public:
  // Takes over `messages`.
  MpiCommunicator(MPI_Comm messages, const Patience& patience);
  ~MpiCommunicator() override;

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  void all_reduce_sum(std::span<float> values) override;
  void all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone) override;
  void gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root) override;
  void broadcast(std::span<std::byte> bytes, int root) override;
  void barrier() override;
  void send(std::span<const std::byte> message, int to, int tag) override;
  void flush(const std::function<void()>& look) override;
  std::vector<std::byte> recv(int from, int tag) override;
  void recv_into(std::span<std::byte> message, int from, int tag) override;
  bool poll(int from, int tag) override;
  std::unique_ptr<Communicator> split(int color, int key) override;
  void abort(int exit_code, const std::string& why) override;

 private:
  template <class Body>
  void each_peer(const Body& body) const {
    for (int step = 1; step < size_; ++step) body((rank_ + step) % size_);
  }
  std::span<float> part_of(std::span<float> values, int rank) const {
    const Range range = deal(static_cast<int64_t>(values.size()), size_, rank);
    return values.subspan(range.begin, range.size());
  }
  std::span<float> received(size_t count, int from) { return std::span(received_).subspan(from * count, count); }
  void sum_received(std::span<float> mine);
  int finish_receive(MPI_Request request);
  void sum_in_parts(std::span<float> values);

  MPI_Comm messages_ = MPI_COMM_NULL;
  MPI_Comm collectives_ = MPI_COMM_NULL;
  int rank_ = 0;
  int size_ = 1;
  Patience patience_;
  MpiRequests requests_;
  MpiOutbox outbox_;
  std::vector<float> received_;  // [size, count] what the other ranks sent to be summed
};

MPI_Comm duplicate(MPI_Comm comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(comm, &copy), "communicator set-up");
  check_mpi(MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN), "communicator set-up");
  return copy;
}

MpiCommunicator::MpiCommunicator(MPI_Comm messages, const Patience& patience)
    : messages_(messages), collectives_(duplicate(messages)), patience_(patience), requests_(collectives_, patience) {
  check_mpi(MPI_Comm_rank(messages_, &rank_), "communicator set-up");
  check_mpi(MPI_Comm_size(messages_, &size_), "communicator set-up");
}

MpiCommunicator::~MpiCommunicator() {
  if (std::uncaught_exceptions() > 0) {
    outbox_.abandon();
    return;
  }
  try {
    constexpr int kLooks = 2000;  // two seconds and more
    PoliteWait wait(patience_);
    for (int look = 0; look < kLooks && !outbox_.empty(); ++look) {
      outbox_.reap();
      wait.pause();
    }
  } catch (const CommError&) {
    // The peer is gone; so will this job be in a moment.
  }
  outbox_.abandon();
  MPI_Comm_free(&collectives_);
  MPI_Comm_free(&messages_);
}

// mine = sum over ranks, in rank order, of what each sent (mine in this rank's place).
void MpiCommunicator::sum_received(std::span<float> mine) {
  constexpr size_t kBlock = 1024;
  float sum[kBlock];
  for (size_t begin = 0; begin < mine.size(); begin += kBlock) {
    const size_t count = std::min(kBlock, mine.size() - begin);
    for (int from = 0; from < size_; ++from) {
      const float* term = (from == rank_ ? mine : received(mine.size(), from)).data() + begin;
      if (from == 0)
        std::copy_n(term, count, sum);
      else
        for (size_t i = 0; i < count; ++i) sum[i] += term[i];
    }
    std::copy_n(sum, count, mine.data() + begin);
  }
}

void MpiCommunicator::all_reduce_sum(std::span<float> values) {
  if (size_ == 1) return;
  if (received_.size() < values.size() * size_) received_.resize(values.size() * size_);
  if (size_ > 2 && values.size_bytes() >= kPartedSumBytes) return sum_in_parts(values);
  each_peer([&](int peer) { requests_.recv(std::as_writable_bytes(received(values.size(), peer)), peer, kSum); });
  each_peer([&](int peer) { requests_.send(std::as_bytes(values), peer, kSum); });
  requests_.finish();
  sum_received(values);
}

void MpiCommunicator::sum_in_parts(std::span<float> values) {
  const std::span<float> mine = part_of(values, rank_);
  each_peer([&](int peer) { requests_.recv(std::as_writable_bytes(received(mine.size(), peer)), peer, kSum); });
  each_peer([&](int peer) { requests_.send(std::as_bytes(part_of(values, peer)), peer, kSum); });
  requests_.finish();
  sum_received(mine);
  each_peer([&](int peer) { requests_.recv(std::as_writable_bytes(part_of(values, peer)), peer, kSummed); });
  each_peer([&](int peer) { requests_.send(std::as_bytes(mine), peer, kSummed); });
  requests_.finish();
}

void MpiCommunicator::all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone) {
  CHECK(everyone.size() == mine.size() * size_, everyone.size(), mine.size(), size_);
  each_peer([&](int peer) { requests_.recv(everyone.subspan(peer * mine.size(), mine.size()), peer, kGather); });
  each_peer([&](int peer) { requests_.send(mine, peer, kGather); });
  std::copy(mine.begin(), mine.end(), everyone.begin() + rank_ * mine.size());
  requests_.finish();
}

void MpiCommunicator::gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root) {
  if (rank_ != root) {
    requests_.send(mine, root, kGather);
  } else {
    CHECK(everyone.size() == mine.size() * size_, everyone.size(), mine.size(), size_);
    each_peer([&](int peer) { requests_.recv(everyone.subspan(peer * mine.size(), mine.size()), peer, kGather); });
    std::copy(mine.begin(), mine.end(), everyone.begin() + rank_ * mine.size());
  }
  requests_.finish();
}

void MpiCommunicator::broadcast(std::span<std::byte> bytes, int root) {
  if (rank_ == root)
    each_peer([&](int peer) { requests_.send(bytes, peer, kBroadcast); });
  else
    requests_.recv(bytes, root, kBroadcast);
  requests_.finish();
}

void MpiCommunicator::barrier() {
  if (rank_ == 0) {
    each_peer([&](int peer) { requests_.recv({}, peer, kArrive); });
    requests_.finish();
    each_peer([&](int peer) { requests_.send({}, peer, kDepart); });
  } else {
    requests_.send({}, 0, kArrive);
    requests_.recv({}, 0, kDepart);
  }
  requests_.finish();
}

// A long message goes over only while its sender looks after it, so a receiver that is waiting already gets it now, not
// after this rank's next stretch of computing. The time is bounded: a receiver that is not there yet, or is behind with
// earlier messages, is not waited for.
void MpiCommunicator::send(std::span<const std::byte> message, int to, int tag) {
  CHECK(to >= 0 && to < size_, to, size_);
  CHECK(tag >= 0, tag);
  outbox_.reap();
  const bool behind = !outbox_.empty();
  outbox_.send(message, to, tag, messages_);
  if (behind || message.size() <= kEagerBytes) return;
  const auto care = std::chrono::microseconds(100 + message.size() / 1000);  // a gigabyte a second
  const auto end = std::chrono::steady_clock::now() + care;
  while (!outbox_.empty() && std::chrono::steady_clock::now() < end) outbox_.reap();
}

void MpiCommunicator::flush(const std::function<void()>& look) {
  PoliteWait wait(patience_);
  for (outbox_.reap(); !outbox_.empty(); outbox_.reap()) {
    look();
    wait.pause();
  }
}

std::vector<std::byte> MpiCommunicator::recv(int from, int tag) {
  CHECK(from >= 0 && from < size_, from, size_);
  MPI_Message handle = MPI_MESSAGE_NULL;
  MPI_Status status;
  PoliteWait wait(patience_);
  for (int there = 0;;) {
    check_mpi(MPI_Improbe(from, tag, messages_, &there, &handle, &status), "receive");
    if (there) break;
    outbox_.reap();
    wait.pause();
  }
  int count = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &count), "receive");
  std::vector<std::byte> message(count);
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Imrecv(message.data(), count, MPI_BYTE, &handle, &request), "receive");
  finish_receive(request);
  return message;
}

void MpiCommunicator::recv_into(std::span<std::byte> message, int from, int tag) {
  CHECK(from >= 0 && from < size_, from, size_);
  MPI_Request request = MPI_REQUEST_NULL;
  const int count = mpi_count(message.size(), "receive");
  check_mpi(MPI_Irecv(message.data(), count, MPI_BYTE, from, tag, messages_, &request), "receive");
  const int received = finish_receive(request);
  CHECK(received == count, received, count, tag);
}

// Bytes received.
int MpiCommunicator::finish_receive(MPI_Request request) {
  MPI_Status status;
  PoliteWait wait(patience_);
  for (int done = 0;;) {
    check_mpi(MPI_Test(&request, &done, &status), "receive");
    if (done) break;
    outbox_.reap();
    wait.pause();
  }
  int count = 0;
  check_mpi(MPI_Get_count(&status, MPI_BYTE, &count), "receive");
  return count;
}

bool MpiCommunicator::poll(int from, int tag) {
  CHECK(from >= 0 && from < size_, from, size_);
  outbox_.reap();
  int there = 0;
  check_mpi(MPI_Iprobe(from, tag, messages_, &there, MPI_STATUS_IGNORE), "poll");
  return there != 0;
}

std::unique_ptr<Communicator> MpiCommunicator::split(int color, int key) {
  CHECK(color >= 0, color);
  MPI_Comm part = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split(messages_, color, key, &part), "split");
  check_mpi(MPI_Comm_set_errhandler(part, MPI_ERRORS_RETURN), "split");
  return std::make_unique<MpiCommunicator>(part, patience_);
}

void MpiCommunicator::abort(int exit_code, const std::string& why) {
  const int code = exit_code == 0 ? 1 : exit_code;
  arm_job_end(code, kLauncherPatience);  // first: a log that nobody reads must not hold up the end
  fmt::print(stderr, "accrete: rank {} ends the job: {}\n", rank_, why);
  std::fflush(stderr);
  end_job(code, kLauncherPatience);
}

// MPI_Finalize meets the other ranks through the launcher; one of them may have been cut off since the last barrier.
class FinalizeGuard {
 public:
  FinalizeGuard() : thread_([this] { wait(); }) {}
  ~FinalizeGuard() {
    {
      const std::lock_guard lock(mutex_);
      done_ = true;
    }
    changed_.notify_one();
    thread_.join();
  }

 private:
  void wait() {
    constexpr auto kFinalizePatience = std::chrono::seconds(10);
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, kFinalizePatience, [this] { return done_; })) end_job(1, kLauncherPatience);
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::thread thread_;  // last: uses the others
};

}  // namespace

MpiSession::MpiSession() {
  int provided = 0;
  check_mpi(MPI_Init_thread(nullptr, nullptr, MPI_THREAD_SERIALIZED, &provided), "start");
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "start");
  if (provided < MPI_THREAD_SERIALIZED)
    throw CommError("MPI start: this MPI library gives no MPI_THREAD_SERIALIZED; use another build");
  MPI_Comm host = MPI_COMM_NULL;
  check_mpi(MPI_Comm_split_type(MPI_COMM_WORLD, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &host), "start");
  MPI_Comm_size(host, &local_ranks_);
  MPI_Comm_free(&host);
}

MpiSession::~MpiSession() {
  if (std::uncaught_exceptions() > 0) end_job(1, kOrderlyPatience);
  const FinalizeGuard guard;
  MPI_Finalize();
}

std::unique_ptr<Communicator> MpiSession::world() {
  return std::make_unique<MpiCommunicator>(duplicate(MPI_COMM_WORLD), patience_for(local_ranks_, cores()));
}

bool under_mpi_launcher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMIX_RANK", "PMI_RANK"})
    if (std::getenv(name)) return true;
  return false;
}

}  // namespace accrete::parallel
