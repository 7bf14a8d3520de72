// What every communicator must do, as bodies that each rank of a group runs: over threads in one process, and under
// mpirun.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "parallel/communicator.h"

namespace accrete::parallel {

struct CommunicatorCheck {
  std::string name;
  std::function<void(Communicator&)> run;
};
inline void PrintTo(const CommunicatorCheck& check, std::ostream* out) {
  *out << check.name;
}

// In a fixed order, the same on all ranks.
const std::vector<CommunicatorCheck>& communicator_checks();

}  // namespace accrete::parallel
