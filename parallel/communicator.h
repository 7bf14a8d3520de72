// Communicator: a group of ranks that move tensors and messages. Implementations: none (one rank), threads (ranks of
// one process), MPI (CPU backend and bootstrap), NCCL (GPU, with the GPU engine). Collectives are entered by all ranks
// in the same order. A lost peer makes any call throw CommError; nothing hangs for longer than timeout.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace accrete::parallel {

struct CommError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

class Communicator {
 public:
  virtual ~Communicator() = default;
  virtual int rank() const = 0;
  virtual int size() const = 0;

  // Sums in rank order on every rank, so that all ranks hold the same bits.
  virtual void all_reduce_sum(std::span<float> values) = 0;
  // everyone[r * mine.size() ...] = rank r's mine.
  virtual void all_gather(std::span<const std::byte> mine, std::span<std::byte> everyone) = 0;
  // The same, on rank `root` alone; elsewhere everyone is empty.
  virtual void gather(std::span<const std::byte> mine, std::span<std::byte> everyone, int root) = 0;
  virtual void broadcast(std::span<std::byte> bytes, int root) = 0;
  virtual void barrier() = 0;

  // Tagged messages, in order for each (from, tag). send copies or completes before it returns the buffer, and does not
  // wait for the receiver (eager); recv gives the whole message. recv idles politely (no busy core) when nothing comes
  // for a while.
  virtual void send(std::span<const std::byte> message, int to, int tag) = 0;
  // Waits until what was sent needs this rank no more: a long message goes over only while its sender calls the communicator. For a sender
  // that is about to wait elsewhere for what its receivers do with it. They must come to receive it without anything else from this rank.
  // `look` is called now and then and may throw: a receiver that hangs is none of the communicator's.
  virtual void flush(const std::function<void()>& look) = 0;
  virtual std::vector<std::byte> recv(int from, int tag) = 0;
  // The same into memory of the receiver's; the message must have that size.
  virtual void recv_into(std::span<std::byte> message, int from, int tag) = 0;
  // A message, if one from `from` with `tag` is there already.
  virtual bool poll(int from, int tag) = 0;

  // New groups: ranks with the same color, ordered by key. Collective.
  virtual std::unique_ptr<Communicator> split(int color, int key) = 0;
  // Ends every rank of the job (MPI_Abort; threads: all waiting calls throw).
  virtual void abort(int exit_code, const std::string& why) = 0;
};

std::unique_ptr<Communicator> make_single();
// n communicators of one process; give one to each rank's thread.
std::vector<std::unique_ptr<Communicator>> make_threads(int n);

}  // namespace accrete::parallel
