// The command line of one replica's job: an mpirun of workers, or a single worker without mpirun.
#pragma once

#include <string>
#include <vector>

#include "worker/engine/engine_options.h"

namespace accrete::launch {

// Replica `index` of the topology.data that `options` ask for on this machine with so many GPUs (0: none, or none is used): its GPUs, its share
// of the cores. Where the GPUs do not suffice for all replicas, several have the same ones, and their kernels leave each other room.
worker::EngineOptions replica_options(const worker::EngineOptions& options, int index, int gpus);
// Whether they do not.
bool replicas_share(const worker::EngineOptions& options, int gpus);

// `options` describes one replica (topology.data 1). `binary` is this program; the API key and the log level travel in the environment.
std::vector<std::string> replica_command(const worker::EngineOptions& options, const std::string& binary, const std::string& coordinator);

}  // namespace accrete::launch
