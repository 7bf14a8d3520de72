// The page allocator as ops see it: a circular free list with 64-bit tickets. Allocation happens only inside the update op,
// frees only between steps, so a taken ticket always names an entry that was written before the step began.
#pragma once

#include <atomic>
#include <cstdint>

#include "kernels/dtype.h"

namespace accrete {

inline constexpr int32_t kNoPage = -1;

// Plain, passed by value; the owner is cache::PagePool. On CUDA the same fields point into device memory.
struct PagePoolRef {
  int32_t* free_ring = nullptr;    // [capacity] page ids
  uint64_t* take_ticket = nullptr; // next entry to take
  const uint64_t* give_ticket = nullptr;  // entries before this one are filled (constant during a step)
  int32_t* exhausted = nullptr;    // set to 1 by a failed take; the step's result is then void for that sequence
  int32_t capacity = 0;            // pages

  // A free page or kNoPage. Relaxed: entries below give_ticket were published before the step started (fork/join or stream
  // order), and each ticket is handed to one taker only.
  int32_t take() const {
    std::atomic_ref<uint64_t> ticket(*take_ticket);
    const uint64_t mine = ticket.fetch_add(1, std::memory_order_relaxed);
    if (mine < *give_ticket) return free_ring[mine % static_cast<uint64_t>(capacity)];
    ticket.fetch_sub(1, std::memory_order_relaxed);
    std::atomic_ref<int32_t>(*exhausted).store(1, std::memory_order_relaxed);
    return kNoPage;
  }
};

// What a pool on the device points to beside its ring, in one piece that a copy brings to the host.
struct PoolTickets {
  uint64_t take = 0;
  uint64_t give = 0;
  int32_t exhausted = 0;
};

}  // namespace accrete
