#include "launch/model/default_model.h"

#include <fmt/format.h>

#include <cstdlib>
#include <filesystem>
#include <stdexcept>

#include "launch/process/run_capture.h"

namespace accrete::launch {
namespace fs = std::filesystem;

std::string own_executable() { return fs::read_symlink("/proc/self/exe").string(); }

std::string launch_folder() {
  if (const char* named = std::getenv("ACCRETE_LAUNCH_DIR"); named != nullptr && *named != '\0') return named;
  for (fs::path folder = fs::path(own_executable()).parent_path(); folder != folder.parent_path(); folder = folder.parent_path()) {
    if (fs::exists(folder / "launch" / "fetch_model.sh")) return (folder / "launch").string();
  }
  return "";
}

std::string fetch_default_model() {
  const std::string folder = launch_folder();
  if (folder.empty()) {
    throw std::runtime_error("no MODEL named and launch/fetch_model.sh not found beside this binary; name a model or set ACCRETE_LAUNCH_DIR");
  }
  const Captured result = run_capture({"bash", folder + "/fetch_model.sh"});
  if (result.exit_code != 0 || result.output.empty()) {
    throw std::runtime_error(fmt::format("the default model {} could not be fetched (see above); name a MODEL to use another", kDefaultModelName));
  }
  return result.output.substr(0, result.output.find('\n'));
}

std::string default_adapter() {
  const fs::path folder = fs::path(launch_folder()) / "default_model";
  return fs::exists(folder / "adapter_config.json") ? folder.string() : "";
}

}  // namespace accrete::launch
