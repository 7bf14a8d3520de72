// TlsClient: a client on 127.0.0.1 that speaks TLS, right or wrong. Blocking; a wait ends after kHang, which only a hang reaches.
#pragma once

#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include <charconv>
#include <memory>
#include <string>
#include <string_view>

#include "tests/net/raw_client.h"
#include "tests/net/tls_files.h"

namespace accrete::net {

class TlsClient {
 public:
  struct Options {
    const Identity* authority = nullptr;  // the one it trusts
    const Identity* identity = nullptr;   // what it shows when asked
    int newest = TLS1_3_VERSION;
    SSL_SESSION* session = nullptr;  // to resume
  };
  using Session = std::unique_ptr<SSL_SESSION, void (*)(SSL_SESSION*)>;

  // Shakes hands at once; greeted() says how it went.
  TlsClient(uint16_t port, const Options& options) : context_(SSL_CTX_new(TLS_client_method()), SSL_CTX_free), ssl_(nullptr, SSL_free) {
    SSL_CTX_set_min_proto_version(context_.get(), TLS1_VERSION);
    SSL_CTX_set_max_proto_version(context_.get(), options.newest);
    SSL_CTX_set_cipher_list(context_.get(), "DEFAULT@SECLEVEL=0");  // TLS 1.1 needs it
    SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER, nullptr);
    X509_STORE_add_cert(SSL_CTX_get_cert_store(context_.get()), options.authority->cert());
    if (options.identity) {
      SSL_CTX_use_certificate(context_.get(), options.identity->cert());
      SSL_CTX_use_PrivateKey(context_.get(), options.identity->key());
    }
    ssl_.reset(SSL_new(context_.get()));
    X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl()), "127.0.0.1");
    if (options.session) SSL_set_session(ssl(), options.session);
    socket_.connect({boost::asio::ip::make_address("127.0.0.1"), port});
    const timeval hang{kHang, 0};
    ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_RCVTIMEO, &hang, sizeof(hang));
    ::setsockopt(socket_.native_handle(), SOL_SOCKET, SO_SNDTIMEO, &hang, sizeof(hang));
    SSL_set_fd(ssl(), socket_.native_handle());
    ERR_clear_error();
    greeted_ = SSL_connect(ssl()) == 1;
    reason_ = ERR_GET_REASON(ERR_peek_last_error());
  }

  bool greeted() const { return greeted_; }
  int reason() const { return reason_; }  // of the handshake's failure, OpenSSL's
  int version() const { return SSL_version(ssl_.get()); }
  bool resumed() const { return SSL_session_reused(ssl_.get()) == 1; }
  Session session() const { return {SSL_get1_session(ssl_.get()), SSL_SESSION_free}; }

  bool send(std::string_view bytes) { return SSL_write(ssl(), bytes.data(), static_cast<int>(bytes.size())) == static_cast<int>(bytes.size()); }

  // Reads until `done`; false when the connection ended or hung before.
  template <class Done>
  bool read_until(Done done) {
    while (!done()) {
      char chunk[4096];
      const int count = SSL_read(ssl(), chunk, sizeof(chunk));
      end_ = count <= 0 ? SSL_get_error(ssl(), count) : SSL_ERROR_NONE;
      if (count <= 0) return false;
      rest_.append(chunk, static_cast<size_t>(count));
    }
    return true;
  }
  bool wait_for(const std::string& text) {
    return read_until([&] { return rest_.find(text) != std::string::npos; });
  }
  // The next whole answer with a Content-Length: its status, and its body in `body`; 0 when none came.
  int answer(std::string* body = nullptr) {
    if (!wait_for("\r\n\r\n")) return 0;
    const std::string head = rest_.substr(0, rest_.find("\r\n\r\n") + 2);
    rest_.erase(0, head.size() + 2);
    const size_t field = head.find("\r\nContent-Length: ");
    size_t length = 0;
    if (field != std::string::npos) std::from_chars(head.data() + field + 18, head.data() + head.size(), length);
    if (!read_until([&] { return rest_.size() >= length; })) return 0;
    if (body) *body = rest_.substr(0, length);
    rest_.erase(0, length);
    return std::stoi(head.substr(9, 3));
  }
  // GET on a connection that stays.
  int get(const std::string& path, std::string* body = nullptr) {
    return send("GET " + path + " HTTP/1.1\r\nHost: a\r\n\r\n") ? answer(body) : 0;
  }
  // Whether the server takes its leave, so that nothing can have been cut off.
  bool told_goodbye() { return !read_until([this] { return !rest_.empty(); }) && end_ == SSL_ERROR_ZERO_RETURN; }
  const std::string& rest() const { return rest_; }
  void take(const std::string& text) { rest_.erase(0, rest_.find(text) + text.size()); }
  void say_goodbye() { SSL_shutdown(ssl()); }
  void hang_up() { socket_.close(); }

 private:
  SSL* ssl() { return ssl_.get(); }

  boost::asio::io_context io_;
  boost::asio::ip::tcp::socket socket_{io_};
  std::unique_ptr<SSL_CTX, void (*)(SSL_CTX*)> context_;
  std::unique_ptr<SSL, void (*)(SSL*)> ssl_;
  std::string rest_;
  bool greeted_ = false;
  int reason_ = 0, end_ = SSL_ERROR_NONE;
};

}  // namespace accrete::net
