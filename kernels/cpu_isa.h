// Which vector instructions this processor has. Loops that need them exist once per level and are chosen at run time, so one
// binary runs everywhere.
#pragma once

namespace accrete {

enum class CpuIsa { portable, avx2, avx512, amx };

// The best vector level of this processor, at most avx512; avx2 includes FMA, avx512 the F, BW, DQ and VL parts.
CpuIsa cpu_isa();
// The best level for matrix products: amx where the processor has bf16 tiles and the system grants them, else cpu_isa().
CpuIsa cpu_matrix_isa();
const char* name_of(CpuIsa isa);

// A plain loop compiled once per level: write it as an ACCRETE_LOOP function, call it from three functions of one line, the
// last two marked with their target, and let an IsaTable of the three choose.
#define ACCRETE_LOOP inline __attribute__((always_inline))
#if defined(__x86_64__)
#define ACCRETE_TARGET_AVX2 __attribute__((target("avx2,fma")))
#define ACCRETE_TARGET_AVX512 \
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,prefer-vector-width=512")))
#else
#define ACCRETE_TARGET_AVX2
#define ACCRETE_TARGET_AVX512
#endif

template <class Function>
struct IsaTable {
  Function portable, avx2, avx512;
  Function best() const {
    switch (cpu_isa()) {
      case CpuIsa::avx512: return avx512;
      case CpuIsa::avx2: return avx2;
      default: break;
    }
    return portable;
  }
};
template <class Function>
IsaTable(Function, Function, Function) -> IsaTable<Function>;

}  // namespace accrete
