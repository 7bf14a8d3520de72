// The model that is used when none is named: SmolLM2-135M-Instruct (Apache 2.0), 98 MB, fetched once by launch/fetch_model.sh.
#pragma once

#include <string>

namespace accrete::launch {

constexpr const char* kDefaultModelName = "SmolLM2-135M-Instruct";

// The path of the .gguf file in the cache folder; runs the fetch script when it is not there yet (its progress goes to stderr).
// Throws std::runtime_error.
std::string fetch_default_model();

// The folder of the adapter that compresses its cache, launch/default_model; empty when this copy lacks it.
std::string default_adapter();

// Where this binary's scripts are: ACCRETE_LAUNCH_DIR, or the first launch/ folder beside or above the binary that has
// fetch_model.sh. Empty when there is none.
std::string launch_folder();

// The running binary's own path.
std::string own_executable();

}  // namespace accrete::launch
