// OneShotMemory: a rank's staging memory and flags, exported to the other ranks of its host, and theirs mapped here. Builds with CUDA only.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

#include "kernels/all_reduce/one_shot.h"
#include "parallel/communicator.h"

namespace accrete::parallel {

// What went wrong in a step that a rank does alone; empty: nothing.
std::string error_of(const std::function<void()>& step);
// All ranks' answers to that: throws CommError on all when something did on one. Collective.
void agree(Communicator& ranks, const std::string& error, const char* doing);

class OneShotMemory {
 public:
  // Collective; throws CommError on all ranks when one of them fails. `error`: what failed on this one before.
  OneShotMemory(Communicator& ranks, size_t capacity, const std::string& error);
  // Unmaps. The own memory is given back only after release().
  ~OneShotMemory();
  OneShotMemory(const OneShotMemory&) = delete;
  OneShotMemory& operator=(const OneShotMemory&) = delete;

  std::byte* staged(int rank) const { return static_cast<std::byte*>(base_[rank]); }
  uint64_t* arrived(int rank) const { return reinterpret_cast<uint64_t*>(static_cast<std::byte*>(base_[rank]) + 2 * capacity_); }
  // Whether some GPU has several of the ranks; the same on all.
  bool gpus_shared() const { return gpus_shared_; }
  // Of the ranks' GPU that has the fewest; the same on all.
  int multiprocessors() const { return multiprocessors_; }
  // Unmaps the others'. Kernels that read them have ended.
  void unmap();
  // Every other rank has unmapped this rank's memory.
  void release() { released_ = true; }

 private:
  struct Card;  // what a rank tells the others
  void share(Communicator& ranks, const std::string& error);
  void give_back(Communicator& ranks);
  std::string fill_card(Card& card);
  std::string unreadable(const Card& own, const Card& card) const;
  std::string map(const Card& own, const Card& card, int rank);
  std::string verify(const Card& card, int rank) const;

  int rank_, size_;
  size_t capacity_;
  std::array<void*, kOneShotRanks> base_{};   // by rank
  std::array<bool, kOneShotRanks> mapped_{};  // by rank: through an IPC handle
  bool gpus_shared_ = false;
  int multiprocessors_ = 0;
  bool released_ = false;
};

}  // namespace accrete::parallel
