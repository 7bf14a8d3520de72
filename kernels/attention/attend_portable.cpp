// attend() with vectors of 4 floats.
#include "kernels/attention/attend.h"

#include <algorithm>

#pragma GCC optimize("fp-contract=fast")

#include "kernels/exp.h"

namespace accrete {
namespace {
#include "kernels/attention/attend_tile.h"
}  // namespace

void attend_portable(const AttendRows& rows, const AttendSlots& slots) { AttendTile<4>::run(rows, slots); }

}  // namespace accrete
