// The flags that describe a model and the engine that runs it, shared by serve, worker, generate, inspect, eval and bench.
#pragma once

#include <CLI/CLI.hpp>
#include <string>
#include <vector>

#include "worker/engine/engine_options.h"

namespace accrete::launch {

struct EngineFlags {
  worker::EngineOptions options;
};

// Declares them on `app`; `flags` must outlive it.
void add_engine_flags(CLI::App& app, EngineFlags& flags);

// After parsing: the default model's path when none was named (fetching it once), its API name, checks that the options fit
// together. Throws UsageError naming the flag, std::runtime_error when the model cannot be had.
void finish_engine_flags(EngineFlags& flags);

// The flags again, as arguments for a child process: every option whose value is not the default.
std::vector<std::string> engine_arguments(const worker::EngineOptions& options);

}  // namespace accrete::launch
