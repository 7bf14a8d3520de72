// Commands that are Python programs of this project: this process becomes them, so signals and exit codes are theirs.
#pragma once

#include <string>
#include <vector>

namespace accrete::launch {

// The interpreter that runs them: `named`, else ACCRETE_PYTHON, else python3.
std::string python_program(const std::string& named = "");

// The path of launch/`name`, a folder with a __main__.py. Throws std::runtime_error when the scripts are not beside this binary.
std::string python_tool(const std::string& name);

// Replaces this process with command[0], looked up in PATH; returns only by throwing std::runtime_error when it cannot be started.
[[noreturn]] void become(const std::vector<std::string>& command);

}  // namespace accrete::launch
