// accrete coordinator: the front alone; replicas join it over the network.
#include <fmt/format.h>

#include <csignal>
#include <cstdio>
#include <memory>

#include "launch/commands/commands.h"
#include "launch/process/signal_gate.h"
#include "launch/server/front.h"

namespace accrete::launch {
namespace {

int run_coordinator(ServerFlags& flags) {
  check_server_flags(flags);
  load_tls_files(flags);
  SignalGate signals;
  Front front(flags);
  int number = 0;
  while (number != SIGTERM && number != SIGINT) number = signals.wait(std::chrono::hours(1));
  front.drain();
  return kExitOk;
}

}  // namespace

Command add_coordinator(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("coordinator", "the front alone: API, routing; replicas join it");
  auto flags = std::make_shared<ServerFlags>();
  add_server_flags(*app, *flags);
  return {app, [flags] { return run_coordinator(*flags); }};
}

}  // namespace accrete::launch
