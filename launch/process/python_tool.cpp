#include "launch/process/python_tool.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <stdexcept>

#include "launch/model/default_model.h"

namespace accrete::launch {

std::string python_program(const std::string& named) {
  if (!named.empty()) return named;
  const char* given = std::getenv("ACCRETE_PYTHON");
  return given != nullptr && *given != '\0' ? given : "python3";
}

std::string python_tool(const std::string& name) {
  const std::string folder = launch_folder();
  const std::filesystem::path tool = std::filesystem::path(folder) / name;
  if (folder.empty() || !std::filesystem::exists(tool / "__main__.py")) {
    throw std::runtime_error(fmt::format("launch/{} not found beside this binary; set ACCRETE_LAUNCH_DIR to the folder launch of the source", name));
  }
  return tool.string();
}

void become(const std::vector<std::string>& command) {
  std::fflush(nullptr);
  std::vector<char*> argv;
  for (const std::string& argument : command) argv.push_back(const_cast<char*>(argument.c_str()));
  argv.push_back(nullptr);
  execvp(argv[0], argv.data());
  throw std::runtime_error(fmt::format("cannot start {}: {}; ACCRETE_PYTHON names another Python 3", command.front(), std::strerror(errno)));
}

}  // namespace accrete::launch
