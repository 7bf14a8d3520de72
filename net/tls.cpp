#include "net/tls.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace accrete::net {
namespace {

using boost::system::error_code;

[[noreturn]] void fail(const char* flag, const std::string& file, const std::string& what) {
  throw std::runtime_error(fmt::format("{} {}: {}", flag, file, what));
}

// The operating system's word on the file, which OpenSSL's errors do not carry.
void check_readable(const char* flag, const std::string& file) {
  const int descriptor = ::open(file.c_str(), O_RDONLY | O_CLOEXEC);
  char byte = 0;
  const ssize_t count = descriptor < 0 ? -1 : ::read(descriptor, &byte, 1);
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (count < 0) fail(flag, file, std::strerror(error));
  if (count == 0) fail(flag, file, "is empty");
}

void check(const char* flag, const std::string& file, const error_code& error, const char* expected) {
  if (error) fail(flag, file, fmt::format("{} ({})", expected, error.message()));
}

void load_certificate(TlsContext& context, const TlsFiles& files) {
  const auto asked = std::make_shared<bool>(false);
  context.set_password_callback([asked](size_t, TlsContext::password_purpose) {  // without it OpenSSL would ask the terminal and wait
    *asked = true;
    return std::string();
  });
  error_code error;
  context.use_certificate_chain_file(files.cert, error);
  check("--ssl-certfile", files.cert, error, "holds no certificate in PEM form");
  context.use_private_key_file(files.key, TlsContext::pem, error);
  if (*asked) fail("--ssl-keyfile", files.key, "is locked by a passphrase; unlock it with openssl pkey -in FILE -out OTHER");
  const bool other = error ? ERR_GET_LIB(error.value()) == ERR_LIB_X509 : SSL_CTX_check_private_key(context.native_handle()) != 1;
  if (other) fail("--ssl-keyfile", files.key, fmt::format("is not the key of the certificate in --ssl-certfile {}", files.cert));
  check("--ssl-keyfile", files.key, error, "is no private key in PEM form");
}

void demand_client_certificates(TlsContext& context, const std::string& ca_certs) {
  error_code error;
  context.load_verify_file(ca_certs, error);
  check("--ssl-ca-certs", ca_certs, error, "holds no certificate in PEM form");
  SSL_CTX_set_client_CA_list(context.native_handle(), SSL_load_client_CA_file(ca_certs.c_str()));  // tells clients which one to bring
  X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context.native_handle()), X509_V_FLAG_PARTIAL_CHAIN);  // what the file names is trusted, root or not
  context.set_verify_mode(boost::asio::ssl::verify_peer | boost::asio::ssl::verify_fail_if_no_peer_cert);
}

}  // namespace

std::shared_ptr<TlsContext> load_tls(const TlsFiles& files) {
  check_readable("--ssl-certfile", files.cert);
  check_readable("--ssl-keyfile", files.key);
  if (!files.ca_certs.empty()) check_readable("--ssl-ca-certs", files.ca_certs);
  auto context = std::make_shared<TlsContext>(TlsContext::tls_server);
  SSL_CTX* native = context->native_handle();
  SSL_CTX_set_min_proto_version(native, TLS1_2_VERSION);
  SSL_CTX_set_options(native, SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_COMPRESSION);
  // Sessions resume by tickets, which need no memory here; the id keeps those of another server out, and without it OpenSSL refuses to
  // resume a session of a client that showed a certificate.
  SSL_CTX_set_session_cache_mode(native, SSL_SESS_CACHE_OFF);
  constexpr unsigned char kSessionId[] = "accrete";
  SSL_CTX_set_session_id_context(native, kSessionId, sizeof(kSessionId) - 1);
  load_certificate(*context, files);
  if (!files.ca_certs.empty()) demand_client_certificates(*context, files.ca_certs);
  return context;
}

}  // namespace accrete::net
