// Which vector instructions this processor has. Loops that need them exist once per level and are chosen at run time, so one
// binary runs everywhere.
#pragma once

namespace accrete {

enum class CpuIsa { portable, avx2, avx512 };

// The best level of this processor; avx2 includes FMA, avx512 the F, BW, DQ and VL parts.
CpuIsa cpu_isa();
const char* name_of(CpuIsa isa);

}  // namespace accrete
