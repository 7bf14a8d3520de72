// Taking pages on the device; the counterpart of PagePoolRef::take. Any number of threads of any kernels of one stream may take at the
// same time, one page or many; nobody gives meanwhile, so *give_ticket is constant and the free list is only read.
//
// Every taker adds what it wants to the counter, has the tickets below *give_ticket, and takes back the rest of its addition. So no page
// is handed out twice, and nobody fails while a page is free:
//     *take_ticket = taken + pending,   pending: additions beyond *give_ticket that have not yet been taken back,
// and pending > 0 implies taken = *give_ticket: the addition that first goes beyond owns all tickets that were left, and pages taken stay
// taken for the rest of the step. From then on the counter is at least *give_ticket whatever is taken back when, so every later taker gets
// nothing, and after the last has taken back it is *give_ticket exactly. No loop, so thousands may take at once.
#pragma once

#include "kernels/paging/page_pool_ref.h"

namespace accrete {

// Tickets [first, first + count) of the free list.
struct TicketRange {
  unsigned long long first = 0;
  int count = 0;
};

// `wanted` pages or as many as there are; fewer set *exhausted.
__device__ inline TicketRange take_tickets(const PagePoolRef& pool, int wanted) {
  if (wanted <= 0) return {};
  auto* ticket = reinterpret_cast<unsigned long long*>(pool.take_ticket);
  const unsigned long long give = *pool.give_ticket;
  const unsigned long long first = atomicAdd(ticket, static_cast<unsigned long long>(wanted));
  if (first + wanted <= give) return {first, wanted};
  const int count = first < give ? static_cast<int>(give - first) : 0;
  atomicAdd(ticket, ~0ull - static_cast<unsigned long long>(wanted - count) + 1);  // minus what is beyond
  *pool.exhausted = 1;
  return {first, count};
}

// Page of a ticket that was taken.
__device__ inline int32_t page_of_ticket(const PagePoolRef& pool, unsigned long long ticket) {
  return pool.free_ring[ticket % static_cast<unsigned>(pool.capacity)];
}

// A free page or kNoPage, which sets *exhausted.
__device__ inline int32_t take_page(const PagePoolRef& pool) {
  const TicketRange taken = take_tickets(pool, 1);
  return taken.count == 1 ? page_of_ticket(pool, taken.first) : kNoPage;
}

// Brings the entries that come next into the level-two cache, eight a thread: a take is then one access to memory less.
__device__ inline void prefetch_free_list(const PagePoolRef& pool) {
  constexpr unsigned kEach = 8;  // a sector
  const unsigned long long next = *reinterpret_cast<volatile unsigned long long*>(pool.take_ticket) + threadIdx.x * kEach;
  asm volatile("prefetch.global.L2 [%0];" ::"l"(pool.free_ring + next % static_cast<unsigned>(pool.capacity)));
}

}  // namespace accrete
