#include "kernels/attention/attend.h"

namespace accrete {

AttendFn attend(CpuIsa isa) {
#if defined(__x86_64__)
  if (isa == CpuIsa::avx512) return attend_avx512;
  if (isa == CpuIsa::avx2) return attend_avx2;
#endif
  return attend_portable;
}

}  // namespace accrete
