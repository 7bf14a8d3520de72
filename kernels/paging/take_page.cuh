// Taking pages on the device; the counterpart of PagePoolRef::take. Any number of threads of any kernels of one stream may take at the
// same time, one page or many; nobody gives meanwhile, so *give_ticket is constant and the free list is only read.
//
// No page is handed out twice, and no taker sees another's failure as its own. The counter is always
//     *take_ticket = taken + pending,   pending: single takes that have failed and not yet undone their addition,
// and pending > 0 implies taken = *give_ticket: a single take fails only when it reads a value >= *give_ticket, which with pending = 0
// means that all pages are taken, and pages taken stay taken for the rest of the step. From then on the counter is at least *give_ticket
// whatever is undone when, so every later take fails too, and after the last undoing it is *give_ticket exactly. A bulk take that does not
// fit never adds at all: other takers may still get the few pages that are left.
#pragma once

#include "kernels/paging/page_pool_ref.h"

namespace accrete {

inline constexpr uint64_t kNoTicket = ~uint64_t{0};

// A free page or kNoPage, which sets *exhausted.
__device__ inline int32_t take_page(const PagePoolRef& pool) {
  auto* ticket = reinterpret_cast<unsigned long long*>(pool.take_ticket);
  const unsigned long long mine = atomicAdd(ticket, 1ull);
  if (mine < *pool.give_ticket) return pool.free_ring[mine % static_cast<unsigned>(pool.capacity)];
  atomicAdd(ticket, ~0ull);  // minus one
  *pool.exhausted = 1;
  return kNoPage;
}

// `count` pages, all or none: the first one's ticket, or kNoTicket, which sets *exhausted. None are always there.
__device__ inline uint64_t take_tickets(const PagePoolRef& pool, unsigned count) {
  if (count == 0) return 0;
  auto* ticket = reinterpret_cast<unsigned long long*>(pool.take_ticket);
  unsigned long long seen = *reinterpret_cast<volatile unsigned long long*>(ticket);
  while (seen + count <= *pool.give_ticket) {
    const unsigned long long before = atomicCAS(ticket, seen, seen + count);
    if (before == seen) return seen;
    seen = before;
  }
  *pool.exhausted = 1;
  return kNoTicket;
}

// Page of a ticket that was taken.
__device__ inline int32_t page_of_ticket(const PagePoolRef& pool, uint64_t ticket) {
  return pool.free_ring[ticket % static_cast<unsigned>(pool.capacity)];
}

}  // namespace accrete
