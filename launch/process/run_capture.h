// Runs a short-lived helper program and collects what it prints on stdout; its stderr is ours.
#pragma once

#include <string>
#include <vector>

namespace accrete::launch {

struct Captured {
  int exit_code = 0;  // 128 + n when signal n ended it
  std::string output;
};

// Waits for the program to end. Throws std::runtime_error when it cannot be started.
Captured run_capture(const std::vector<std::string>& arguments);

}  // namespace accrete::launch
