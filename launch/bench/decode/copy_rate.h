// The GPU's rate of copying its own memory, bytes read and written a second: what a memory-bound step can at best reach.
#pragma once

#include <string>

namespace accrete::launch {

// Of the first visible GPU, whose name goes to `gpu`. 0 without CUDA.
double measured_copy_rate(std::string& gpu);

}  // namespace accrete::launch
