// Taking pages on the device; the counterpart of PagePoolRef::take.
#pragma once

#include "kernels/paging/page_pool_ref.h"

namespace accrete {

// A free page or kNoPage. A ticket at or past give_ticket fails and is undone. That never hands a page out twice: a single take
// fails only when every page is handed out (each pending failure raises the counter above give_ticket, and no other operation does),
// so nothing can succeed between a failing take and its undoing.
__device__ inline int32_t take_page(const PagePoolRef& pool) {
  auto* ticket = reinterpret_cast<unsigned long long*>(pool.take_ticket);
  const unsigned long long mine = atomicAdd(ticket, 1ull);
  if (mine < *pool.give_ticket) return pool.free_ring[mine % static_cast<unsigned>(pool.capacity)];
  atomicAdd(ticket, ~0ull);  // minus one
  *pool.exhausted = 1;
  return kNoPage;
}

// `count` pages, all or none: the first one's ticket, or ~0 when they are not there. Compare-and-swap, so that a failure leaves no trace.
__device__ inline uint64_t take_tickets(const PagePoolRef& pool, unsigned count) {
  auto* ticket = reinterpret_cast<unsigned long long*>(pool.take_ticket);
  unsigned long long seen = *reinterpret_cast<volatile unsigned long long*>(ticket);
  while (seen + count <= *pool.give_ticket) {
    const unsigned long long before = atomicCAS(ticket, seen, seen + count);
    if (before == seen) return seen;
    seen = before;
  }
  *pool.exhausted = 1;
  return ~0ull;
}
__device__ inline int32_t page_of_ticket(const PagePoolRef& pool, uint64_t ticket) {
  return pool.free_ring[ticket % static_cast<unsigned>(pool.capacity)];
}

}  // namespace accrete
