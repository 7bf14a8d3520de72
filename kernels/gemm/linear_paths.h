// The two ways to the same product. linear_cpu picks by the number of rows; tests and benchmarks call them one by one.
#pragma once

#include "kernels/cpu_isa.h"
#include "kernels/gemm/linear.h"
#include "kernels/thread_pool.h"

namespace accrete {

// Own loops at an instruction level of this processor: each weight is read once for up to eight rows.
void linear_dot(const Linear& op, ThreadPool& pool, CpuIsa isa);

// OpenBLAS, a slice of the weight rows at a time, bf16 widened into the calling thread's scratch.
void linear_blas(const Linear& op, ThreadPool& pool);

}  // namespace accrete
