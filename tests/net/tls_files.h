// Certificates for tests, made when they are needed: an authority, what it signs, and the PEM files of both.
#pragma once

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <memory>
#include <stdexcept>
#include <string>

namespace accrete::net {

// A folder that goes with its owner.
class TlsFolder {
 public:
  TlsFolder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "accrete_tls_XXXXXX").string();
    if (::mkdtemp(pattern.data()) == nullptr) throw std::runtime_error("no temporary folder");
    path_ = pattern;
  }
  ~TlsFolder() { std::filesystem::remove_all(path_); }
  TlsFolder(const TlsFolder&) = delete;
  TlsFolder& operator=(const TlsFolder&) = delete;

  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string write(const std::string& name, const std::string& text) const {
    std::ofstream(file(name)) << text;
    return file(name);
  }

 private:
  std::filesystem::path path_;
};

// A key and the certificate that goes with it.
class Identity {
 public:
  // Signed by itself, or by `issuer`. Good for 127.0.0.1 as server and for any use as client.
  explicit Identity(const std::string& name, const Identity* issuer = nullptr, bool rsa = false)
      : key_(rsa ? EVP_RSA_gen(2048) : EVP_EC_gen("P-256"), EVP_PKEY_free), cert_(X509_new(), X509_free) {
    static long serial = 0;
    X509_set_version(cert(), X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(cert()), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(cert()), -3600);
    X509_gmtime_adj(X509_getm_notAfter(cert()), 86400);
    X509_set_pubkey(cert(), key());
    X509_NAME_add_entry_by_txt(X509_get_subject_name(cert()), "CN", MBSTRING_ASC, reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    const Identity& signer = issuer ? *issuer : *this;
    X509_set_issuer_name(cert(), X509_get_subject_name(signer.cert()));
    extend(NID_basic_constraints, issuer ? "critical,CA:FALSE" : "critical,CA:TRUE");
    extend(NID_subject_alt_name, "IP:127.0.0.1");
    if (X509_sign(cert(), signer.key(), EVP_sha256()) == 0) throw std::runtime_error("X509_sign");
  }

  std::string write_cert(const std::string& path) const {
    const File file(std::fopen(path.c_str(), "w"), std::fclose);
    PEM_write_X509(file.get(), cert());
    return path;
  }
  // A passphrase locks the key.
  std::string write_key(const std::string& path, const std::string& passphrase = "") const {
    const File file(std::fopen(path.c_str(), "w"), std::fclose);
    const auto* word = reinterpret_cast<const unsigned char*>(passphrase.data());
    if (passphrase.empty()) PEM_write_PrivateKey(file.get(), key(), nullptr, nullptr, 0, nullptr, nullptr);
    else PEM_write_PrivateKey(file.get(), key(), EVP_aes_128_cbc(), word, static_cast<int>(passphrase.size()), nullptr, nullptr);
    return path;
  }
  X509* cert() const { return cert_.get(); }
  EVP_PKEY* key() const { return key_.get(); }

 private:
  using File = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;

  void extend(int nid, const char* value) {
    X509V3_CTX context;
    X509V3_set_ctx_nodb(&context);
    X509V3_set_ctx(&context, cert(), cert(), nullptr, nullptr, 0);
    X509_EXTENSION* extension = X509V3_EXT_conf_nid(nullptr, &context, nid, value);
    if (extension == nullptr) throw std::runtime_error(value);
    X509_add_ext(cert(), extension, -1);
    X509_EXTENSION_free(extension);
  }

  std::unique_ptr<EVP_PKEY, void (*)(EVP_PKEY*)> key_;
  std::unique_ptr<X509, void (*)(X509*)> cert_;
};

}  // namespace accrete::net
