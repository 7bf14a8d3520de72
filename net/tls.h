// What a server needs to speak TLS: its certificate, its key and, when clients must prove who they are, the authorities that vouch for them.
#pragma once

#include <boost/asio/ssl/context.hpp>
#include <memory>
#include <string>

namespace accrete::net {

using TlsContext = boost::asio::ssl::context;

struct TlsFiles {
  std::string key;       // PEM, without a passphrase
  std::string cert;      // PEM: the server's certificate, then those between it and its authority
  std::string ca_certs;  // PEM; empty: clients bring no certificate, else they must bring one that these have signed
};

// The files read and checked: TLS 1.2 and newer, the key belongs to the certificate. Throws std::runtime_error naming the flag (--ssl-keyfile,
// --ssl-certfile, --ssl-ca-certs), its file and what is wrong. Never asks the terminal. Connections of any thread may share the context.
std::shared_ptr<TlsContext> load_tls(const TlsFiles& files);

}  // namespace accrete::net
