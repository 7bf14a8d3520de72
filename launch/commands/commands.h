// The commands of `accrete`. Each add_* declares one command's flags under `parent` and returns what runs it.
#pragma once

#include "launch/cli/command_line.h"

namespace accrete::launch {

Command add_serve(CLI::App& parent);
Command add_coordinator(CLI::App& parent);
Command add_worker(CLI::App& parent);
Command add_generate(CLI::App& parent);
Command add_inspect(CLI::App& parent);
Command add_profile(CLI::App& parent);
Command add_convert_megatron(CLI::App& parent);
Command add_retrofit(CLI::App& parent);
Command add_eval_perplexity(CLI::App& parent);
Command add_eval_tasks(CLI::App& parent);
Command add_bench_throughput(CLI::App& parent);
Command add_bench_latency(CLI::App& parent);
Command add_bench_serve(CLI::App& parent);
Command add_bench_decode(CLI::App& parent);
Command add_bench_kernels(CLI::App& parent);

}  // namespace accrete::launch
