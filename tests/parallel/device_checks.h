// What every group of device memory must do, as bodies that each rank runs: over threads on one GPU, and under mpirun. A check that finds
// something wrong still takes part in all its collectives.
#pragma once

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "kernels/stream.h"
#include "parallel/device_group.h"
#include "parallel/one_shot_group.h"

namespace accrete::parallel {

struct DeviceRig {
  DeviceGroup& group;
  Communicator& ranks;  // the same ranks, on the host
  Stream& stream;
  bool in_rank_order;  // the group promises sums to the bit
};
struct DeviceCheck {
  std::string name;
  std::function<std::string(DeviceRig&)> run;  // what is wrong; empty: nothing
};
inline void PrintTo(const DeviceCheck& check, std::ostream* out) { *out << check.name; }
// In a fixed order, the same on all ranks.
const std::vector<DeviceCheck>& device_checks();

struct OneShotRig {
  OneShotGroup& group;
  Communicator& ranks;
  Stream& stream;
};
struct OneShotCheck {
  std::string name;
  std::function<std::string(OneShotRig&)> run;
};
inline void PrintTo(const OneShotCheck& check, std::ostream* out) { *out << check.name; }
const std::vector<OneShotCheck>& one_shot_checks();
// What is wrong with the limits that are found between a one-shot group of these ranks and `group`.
std::string limits_found(DeviceGroup& group, Communicator& ranks, Stream& stream);

}  // namespace accrete::parallel
