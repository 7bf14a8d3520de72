// accrete serve: one machine, everything. The coordinator runs here, each replica is a child job.
#include <fmt/format.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <memory>

#if defined(ACCRETE_CUDA)
#include "kernels/device/device_memory.h"
#endif
#include "launch/cli/engine_flags.h"
#include "launch/commands/commands.h"
#include "launch/model/default_model.h"
#include "launch/process/child_job.h"
#include "launch/process/replica_job.h"
#include "launch/process/signal_gate.h"
#include "launch/server/front.h"

namespace accrete::launch {
namespace {

using std::chrono::milliseconds;

// How long replicas get to end after SIGTERM before they are killed.
constexpr auto kStopPatience = std::chrono::seconds(12);
constexpr double kTellClients = 3.0;  // seconds for the errors of requests that died with the last replica
constexpr auto kGlance = milliseconds(200);

struct ServeFlags {
  EngineFlags engine;
  ServerFlags server;
};

using Jobs = std::vector<std::unique_ptr<ChildJob>>;

// 0: none, or the CPU was asked for.
int usable_gpus(const worker::EngineOptions& options) {
#if defined(ACCRETE_CUDA)
  return options.device == "cpu" ? 0 : device_count();
#else
  (void)options;
  return 0;
#endif
}

Jobs start_replicas(const worker::EngineOptions& options, const std::string& address) {
  const int gpus = options.topology.data > 1 ? usable_gpus(options) : 0;
  if (replicas_share(options, gpus)) {
    spdlog::warn("serve.gpus_shared replicas={} ranks={} gpus={}", options.topology.data, options.topology.data * options.topology.replica_ranks(), gpus);
  }
  Jobs jobs;
  for (int i = 0; i < options.topology.data; ++i) {
    jobs.push_back(std::make_unique<ChildJob>(fmt::format("replica {}", i), replica_command(replica_options(options, i, gpus), own_executable(), address)));
  }
  return jobs;
}

// Takes out and reports the jobs that have ended.
void bury(Jobs& jobs) {
  for (const auto& job : jobs) {
    if (const auto code = job->poll()) fmt::print(stderr, "accrete serve: {} ended with exit code {}\n", job->name(), *code);
  }
  std::erase_if(jobs, [](const auto& job) { return !job->running(); });
}

void stop(Jobs& jobs, SignalGate& signals) {
  for (const auto& job : jobs) job->terminate();
  const auto end = std::chrono::steady_clock::now() + kStopPatience;
  while (!jobs.empty() && std::chrono::steady_clock::now() < end) {
    signals.wait(kGlance);
    std::erase_if(jobs, [](const auto& job) { return !job->running(); });
  }
  jobs.clear();  // kills what is left
}

int run_serve(ServeFlags& flags) {
  check_server_flags(flags.server);
  load_tls_files(flags.server);
  finish_engine_flags(flags.engine);
  if (!flags.server.api_key.empty()) setenv("ACCRETE_API_KEY", flags.server.api_key.c_str(), 1);
  SignalGate signals;
  Front front(flags.server);
  Jobs jobs = start_replicas(flags.engine.options, front.address());
  while (!jobs.empty()) {
    const int number = signals.wait(kGlance);
    bury(jobs);  // first: a failure is not masked by a later SIGTERM
    if (!jobs.empty() && (number == SIGTERM || number == SIGINT)) {
      front.drain();
      stop(jobs, signals);
      return kExitOk;
    }
  }
  front.drain(kTellClients);
  throw std::runtime_error("no replica is left; the reason stands above");
}

}  // namespace

Command add_serve(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("serve", "one machine, everything: OpenAI API on --port, replicas as child jobs");
  auto flags = std::make_shared<ServeFlags>();
  add_engine_flags(*app, flags->engine);
  add_server_flags(*app, flags->server);
  return {app, [flags] { return run_serve(*flags); }};
}

}  // namespace accrete::launch
