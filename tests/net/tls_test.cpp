// What load_tls takes and refuses. Every refusal names the flag and its file.
#include "net/tls.h"

#include <gtest/gtest.h>

#include "tests/net/tls_files.h"

namespace accrete::net {
namespace {

class LoadTls : public testing::Test {
 protected:
  // Nothing when the files are taken, else the error.
  static std::string error_of(const TlsFiles& files) {
    try {
      EXPECT_NE(load_tls(files), nullptr);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  }
  static void expect_refused(const TlsFiles& files, const std::string& flag, const std::string& file, const std::string& why) {
    const std::string error = error_of(files);
    EXPECT_TRUE(error.starts_with(flag + " " + file + ": ")) << error;
    EXPECT_NE(error.find(why), std::string::npos) << error;
  }

  TlsFolder folder_;
  Identity server_{"server"};
  TlsFiles good_{server_.write_key(folder_.file("key.pem")), server_.write_cert(folder_.file("cert.pem")), ""};
};

TEST_F(LoadTls, takes_a_key_its_certificate_and_authorities) {
  EXPECT_EQ(error_of(good_), "");
  good_.ca_certs = Identity("authority").write_cert(folder_.file("ca.pem"));
  EXPECT_EQ(error_of(good_), "");
}

TEST_F(LoadTls, says_which_file_cannot_be_read) {
  for (const auto& [member, flag] : {std::pair{&TlsFiles::key, "--ssl-keyfile"}, {&TlsFiles::cert, "--ssl-certfile"}, {&TlsFiles::ca_certs, "--ssl-ca-certs"}}) {
    TlsFiles files = good_;
    files.*member = folder_.file("missing.pem");
    expect_refused(files, flag, files.*member, "No such file");
    files.*member = folder_.file("");
    expect_refused(files, flag, files.*member, "Is a directory");
    files.*member = folder_.write("empty.pem", "");
    expect_refused(files, flag, files.*member, "empty");
    files.*member = folder_.write("text.pem", "not a certificate, nor a key\n");
    expect_refused(files, flag, files.*member, "PEM");
  }
}

TEST_F(LoadTls, says_when_files_change_places) {
  expect_refused({good_.cert, good_.key, ""}, "--ssl-certfile", good_.key, "no certificate");
  expect_refused({good_.cert, good_.cert, ""}, "--ssl-keyfile", good_.cert, "no private key");
  expect_refused({good_.key, good_.cert, good_.key}, "--ssl-ca-certs", good_.key, "no certificate");
}

TEST_F(LoadTls, a_key_belongs_to_its_certificate) {
  for (bool rsa : {false, true}) {  // of the certificate's kind and of another: OpenSSL keeps one of each kind
    const std::string other = Identity("other", nullptr, rsa).write_key(folder_.file("other.pem"));
    expect_refused({other, good_.cert, ""}, "--ssl-keyfile", other, good_.cert);
  }
}

TEST_F(LoadTls, a_locked_key_is_refused_without_asking_the_terminal) {
  const std::string locked = server_.write_key(folder_.file("locked.pem"), "secret");
  expect_refused({locked, good_.cert, ""}, "--ssl-keyfile", locked, "passphrase");
}

}  // namespace
}  // namespace accrete::net
