// Copies by tensor maps (kernels/device/tensor_map.h) that signal barriers in shared memory, and what producers and consumers of a block
// need beside them: inline PTX (PTX ISA 8.5, sections 9.7.9.27 and 9.7.13).
#pragma once

#include <cuda.h>

#include <cstdint>

namespace accrete {

__device__ __forceinline__ uint32_t shared_address(const void* shared) { return static_cast<uint32_t>(__cvta_generic_to_shared(shared)); }

// A barrier of `arrivals` threads. Its phases have parities 0, 1, 0, ...; waiting for parity 1 of a new barrier returns at once.
__device__ __forceinline__ void init_barrier(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals) : "memory");
}
// After initialising, before the block's barrier behind which others use them.
__device__ __forceinline__ void publish_barriers() { asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory"); }
__device__ __forceinline__ void arrive(uint64_t* barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(shared_address(barrier)) : "memory");
}
// The phase ends when also `bytes` more have been copied.
__device__ __forceinline__ void arrive_expecting(uint64_t* barrier, int bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes) : "memory");
}
__device__ __forceinline__ void wait_phase(uint64_t* barrier, uint32_t parity) {
  asm volatile(
      "{\n\t.reg .pred p;\n\t"
      "again:\n\tmbarrier.try_wait.parity.shared::cta.b64 p, [%0], %1;\n\t"
      "@p bra done;\n\tbra again;\n\t"
      "done:\n\t}" ::"r"(shared_address(barrier)), "r"(parity)
      : "memory");
}

// The box at these elements of a map's tensor into shared memory, dimension 0 fastest; what lies outside the tensor is zero. It counts as
// all of its bytes for the barrier.
__device__ __forceinline__ void copy_box(void* to, const CUtensorMap& map, uint64_t* barrier, int4 at) {
  asm volatile("cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(shared_address(to)),
               "l"(&map), "r"(shared_address(barrier)), "r"(at.x), "r"(at.y), "r"(at.z), "r"(at.w)
               : "memory");
}
__device__ __forceinline__ void prefetch_map(const CUtensorMap& map) { asm volatile("prefetch.tensormap [%0];" ::"l"(&map) : "memory"); }

// Makes this thread's earlier stores to shared memory visible to copies and products in the background, which others start after a barrier.
__device__ __forceinline__ void publish_stores() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

// The hardware's barriers 1 to 15 of a block, over `threads` threads (whole warps). The memory of those that arrive is seen by those that wait.
__device__ __forceinline__ void wait_named(int barrier, int threads) { asm volatile("bar.sync %0, %1;" ::"r"(barrier), "r"(threads) : "memory"); }
__device__ __forceinline__ void arrive_named(int barrier, int threads) { asm volatile("bar.arrive %0, %1;" ::"r"(barrier), "r"(threads) : "memory"); }

// A warpgroup gives registers of each thread away, or takes what others gave.
template <int kRegisters>
__device__ __forceinline__ void give_registers() { asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters)); }
template <int kRegisters>
__device__ __forceinline__ void take_registers() { asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters)); }

}  // namespace accrete
