#include "launch/server/server_flags.h"

#include <fmt/format.h>

#include "launch/cli/command_line.h"

namespace accrete::launch {

void add_server_flags(CLI::App& app, ServerFlags& flags) {
  app.add_option("--host", flags.host, "address to listen on")->capture_default_str();
  app.add_option("--port", flags.port, "HTTP")->check(CLI::Range(1, 65535))->capture_default_str();
  app.add_option("--rpc-port", flags.rpc_port, "replicas, and programs that speak the binary protocol")->check(CLI::Range(1, 65535))->capture_default_str();
  app.add_option("--api-key", flags.api_key, "clients and replicas must bring it; better as ACCRETE_API_KEY");
  app.add_option("--chat-template", flags.chat_template, "llama-2, llama-3, chatml or zephyr instead of the model's own");
  app.add_option("--shutdown-timeout", flags.shutdown_timeout, "seconds that open requests get when told to stop")
      ->check(CLI::Range(0.0, 86400.0))->capture_default_str();
  app.add_option("--ssl-keyfile", flags.ssl.key, "HTTPS on --port: the key, PEM without a passphrase")->type_name("FILE");
  app.add_option("--ssl-certfile", flags.ssl.cert, "HTTPS on --port: the certificate and those up to its authority, PEM")->type_name("FILE");
  app.add_option("--ssl-ca-certs", flags.ssl.ca_certs, "HTTPS clients must show a certificate signed by one of these, PEM")->type_name("FILE");
}

void check_server_flags(const ServerFlags& flags) {
  if (flags.port == flags.rpc_port) throw UsageError(fmt::format("--rpc-port {}: is --port too", flags.rpc_port));
  const net::TlsFiles& ssl = flags.ssl;
  if (ssl.key.empty() != ssl.cert.empty()) {
    throw UsageError(ssl.key.empty() ? "--ssl-certfile needs its key: --ssl-keyfile" : "--ssl-keyfile needs its certificate: --ssl-certfile");
  }
  if (ssl.cert.empty() && !ssl.ca_certs.empty()) throw UsageError("--ssl-ca-certs needs --ssl-certfile and --ssl-keyfile");
}

void load_tls_files(ServerFlags& flags) {
  if (!flags.ssl.cert.empty()) flags.tls = net::load_tls(flags.ssl);
}

std::string reachable_host(const std::string& host) {
  if (host == "0.0.0.0") return "127.0.0.1";
  return host == "::" ? "::1" : host;
}

}  // namespace accrete::launch
