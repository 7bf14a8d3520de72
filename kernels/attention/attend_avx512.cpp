// attend() with vectors of 16 floats.
#include "kernels/attention/attend.h"

#include <algorithm>

#if defined(__x86_64__)
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")
#pragma GCC optimize("fp-contract=fast")

#include "kernels/exp.h"

namespace accrete {
namespace {
#include "kernels/attention/attend_tile.h"
}  // namespace

void attend_avx512(const AttendRows& rows, const AttendSlots& slots) { AttendTile<16>::run(rows, slots); }

}  // namespace accrete
#endif
