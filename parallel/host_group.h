// A DeviceGroup for ranks that compute on the CPU: a Communicator under the interface that stages know. Streams are not looked at.
#pragma once

#include <memory>

#include "parallel/device_group.h"

namespace accrete::parallel {

// Borrows `ranks`.
std::unique_ptr<DeviceGroup> make_host_group(Communicator& ranks);

}  // namespace accrete::parallel
