// The flags of a coordinator, whether it is a process of its own or part of serve or of a worker job.
#pragma once

#include <CLI/CLI.hpp>
#include <memory>
#include <string>

#include "net/tls.h"

namespace accrete::launch {

struct ServerFlags {
  std::string host = "0.0.0.0";
  int port = 8000;
  int rpc_port = 8001;
  std::string api_key;
  std::string chat_template;
  double shutdown_timeout = 30.0;
  net::TlsFiles ssl;                      // no certificate: HTTP in the clear
  std::shared_ptr<net::TlsContext> tls;  // read from them by load_tls_files()
};

void add_server_flags(CLI::App& app, ServerFlags& flags);

// Throws UsageError when flags do not fit together.
void check_server_flags(const ServerFlags& flags);

// For a process that will bring the front along, before it loads anything else. Throws std::runtime_error naming the flag and its file.
void load_tls_files(ServerFlags& flags);

// Where processes of this machine reach a listener on `host`: "127.0.0.1" for every address of the machine.
std::string reachable_host(const std::string& host);

}  // namespace accrete::launch
