// The HTTP server under TLS over real sockets: who gets in, who is kept out, and that what holds in the clear holds here. No test measures
// time: each timeout that a test relies on is short, the others are hours, and kHang is reached by a hang alone.
#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "net/http_server.h"
#include "tests/net/raw_client.h"
#include "tests/net/tls_client.h"
#include "tests/net/tls_files.h"

namespace accrete::net {
namespace {

namespace asio = boost::asio;
using namespace asio::experimental::awaitable_operators;

constexpr auto kNever = std::chrono::hours(1);
constexpr auto kShort = std::chrono::milliseconds(150);

HttpResponse text(unsigned status, const std::string& body) {
  HttpResponse response;
  response.status = status;
  response.content_type = "text/plain";
  response.body = body;
  return response;
}

// A server on a thread of its own. /echo answers with the body, /count streams kChunks chunks, /stream streams until the client is gone,
// /hold says nothing until then; the two last count when they are told.
class HttpTls : public testing::Test {
 protected:
  static constexpr int kChunks = 50;

  void serve(HttpServer::Options options) {
    options.host = "127.0.0.1";
    options.port = 0;
    options.tls = load_tls({server_identity_.write_key(folder_.file("key.pem")), server_identity_.write_cert(folder_.file("cert.pem")), ca_certs_});
    server_ = std::make_unique<HttpServer>(io_, options, [this](HttpExchange& exchange) { return handle(exchange); },
                                           [](unsigned status, const std::string& why) { return text(status, why); });
    server_->start();
    thread_ = std::thread([this] { io_.run(); });
  }
  // Patience without end except where a test says otherwise.
  static HttpServer::Options patient() {
    HttpServer::Options options;
    options.read_patience = options.idle_patience = kNever;
    return options;
  }
  void demand_client_certificates() { ca_certs_ = authority_.write_cert(folder_.file("ca.pem")); }

  void TearDown() override {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }

  asio::awaitable<void> handle(HttpExchange& exchange) {
    ++handled_;
    const std::string path(exchange.request().target());
    if (path == "/hold") {
      co_await exchange.until_gone();
      co_return told();
    }
    if (path == "/stream" || path == "/count") {
      co_await exchange.begin_stream("text/event-stream");
      const auto ended = co_await (write(exchange, path == "/count" ? kChunks : -1) || exchange.until_gone());
      if (ended.index() == 1 || path == "/stream") told();
      co_return;
    }
    co_await exchange.respond(text(200, path == "/echo" ? exchange.request().body() : path));
  }
  asio::awaitable<void> write(HttpExchange& exchange, int count) {
    asio::steady_timer pause(io_);
    while (count-- != 0) {
      if (!co_await exchange.write("data: more\n\n")) co_return;
      pause.expires_after(std::chrono::milliseconds(1));
      co_await pause.async_wait(asio::use_awaitable);
    }
    co_await exchange.end_stream();
  }

  void told() {
    const std::lock_guard lock(mutex_);
    ++gone_;
    changed_.notify_all();
  }
  bool wait_gone(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(kHang), [&] { return gone_ >= count; });
  }
  void wait_handled(int count) {
    for (int i = 0; i < kHang * 100 && handled_ < count; ++i) std::this_thread::sleep_for(std::chrono::milliseconds(10));
    ASSERT_EQ(handled_, count);
  }

  TlsClient connect(const TlsClient::Options& options) { return TlsClient(server_->port(), options); }
  TlsClient::Options trusting() const { return {.authority = &authority_}; }
  // The server answers a well-behaved client.
  void expect_alive(const Identity* shown = nullptr) {
    TlsClient client(server_->port(), {.authority = &authority_, .identity = shown});
    ASSERT_TRUE(client.greeted());
    ASSERT_TRUE(client.send("GET /alive HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    std::string body;
    EXPECT_EQ(client.answer(&body), 200);
    EXPECT_EQ(body, "/alive");
    EXPECT_TRUE(client.told_goodbye());
  }

  TlsFolder folder_;
  Identity authority_{"authority"}, server_identity_{"server", &authority_};
  std::string ca_certs_;
  asio::io_context io_{1};
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int gone_ = 0;
  std::atomic<int> handled_ = 0;
};

TEST_F(HttpTls, answers_over_both_versions_and_keeps_connections) {
  serve(patient());
  for (int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient client(server_->port(), {.authority = &authority_, .newest = version});
    ASSERT_TRUE(client.greeted());
    EXPECT_EQ(client.version(), version);
    std::string body;
    for (const char* path : {"/a", "/b"}) {
      EXPECT_EQ(client.get(path, &body), 200);
      EXPECT_EQ(body, path);
    }
  }
  expect_alive();
}

TEST_F(HttpTls, refuses_versions_before_1_2) {
  serve(patient());
  TlsClient client(server_->port(), {.authority = &authority_, .newest = TLS1_1_VERSION});
  EXPECT_FALSE(client.greeted());
  EXPECT_EQ(client.reason(), SSL_R_TLSV1_ALERT_PROTOCOL_VERSION);
  expect_alive();
}

TEST_F(HttpTls, a_client_that_trusts_another_authority_goes_and_costs_nothing) {
  HttpServer::Options options = patient();
  options.max_connections = 1;
  serve(options);
  const Identity other("authority");  // the same name, another key
  for (int i = 0; i < 3; ++i) {
    TlsClient client(server_->port(), {.authority = &other});
    EXPECT_FALSE(client.greeted());
    EXPECT_EQ(client.reason(), SSL_R_CERTIFICATE_VERIFY_FAILED);
  }
  EXPECT_EQ(handled_, 0);
  for (int status = 0; status != 200;) status = connect(trusting()).get("/");  // 503 until the last one's place is free
}

TEST_F(HttpTls, a_client_in_the_clear_is_closed_unheard) {
  serve(patient());
  for (const std::string& bytes : {std::string("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), std::string("\x16\x03\x01\xff\xff", 5) + std::string(70000, 'x'), std::string(100, '\0')}) {
    RawClient client(server_->port());
    client.send(bytes);
    // At most an alert of 7 bytes, then the end: nothing of it is HTTP.
    EXPECT_FALSE(client.read_until([&] { return client.rest().size() > 7; })) << client.rest();
    EXPECT_TRUE(client.rest().empty() || client.rest()[0] == '\x15') << client.rest();
  }
  EXPECT_EQ(handled_, 0);
  expect_alive();
}

TEST_F(HttpTls, handshakes_that_stall_are_cut_off_and_others_are_served_meanwhile) {
  HttpServer::Options options = patient();
  options.read_patience = std::chrono::milliseconds(1500);  // which the good client's handshake and request must keep
  serve(options);
  RawClient silent(server_->port()), begun(server_->port()), dribbling(server_->port());
  const std::string hello("\x16\x03\x01\x3f\xff", 5);  // announces a record of 16383 bytes, more than will come
  ASSERT_TRUE(begun.send(hello));
  ASSERT_TRUE(dribbling.send(hello + "\x01"));
  expect_alive();
  EXPECT_TRUE(silent.ended());
  EXPECT_TRUE(begun.ended());
  bool open = true;
  for (int i = 0; i < 4000 && open; ++i) {  // its bytes keep no connection: the patience is for the whole handshake
    open = dribbling.send(std::string(1, '\0'));
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_FALSE(open);
  EXPECT_EQ(handled_, 1);
}

TEST_F(HttpTls, handshakes_count_as_connections) {
  HttpServer::Options options = patient();
  options.max_connections = 2;
  serve(options);
  RawClient first(server_->port()), second(server_->port());
  {
    TlsClient third(server_->port(), trusting());
    ASSERT_TRUE(third.greeted());
    std::string why;
    EXPECT_EQ(third.get("/", &why), 503);
    EXPECT_EQ(why, "too many connections");
    EXPECT_TRUE(third.told_goodbye());
  }
  first.hang_up();
  for (int status = 0; status != 200;) {
    status = connect(trusting()).get("/");
    ASSERT_TRUE(status == 200 || status == 503);
  }
}

TEST_F(HttpTls, after_the_handshake_a_request_must_come_in_time) {
  HttpServer::Options options = patient();
  options.idle_patience = kShort;
  serve(options);
  TlsClient silent(server_->port(), trusting());
  ASSERT_TRUE(silent.greeted());
  EXPECT_FALSE(silent.read_until([&] { return !silent.rest().empty(); }));
}

TEST_F(HttpTls, clients_must_show_a_certificate_of_the_authority) {
  demand_client_certificates();
  serve(patient());
  const Identity other("authority"), friendly("client", &authority_), forged("client", &other);
  for (int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {  // a client of TLS 1.3 learns of its refusal from its first read
    TlsClient none(server_->port(), {.authority = &authority_, .newest = version});
    EXPECT_FALSE(none.greeted() && none.get("/") != 0);
    TlsClient wrong(server_->port(), {.authority = &authority_, .identity = &forged, .newest = version});
    EXPECT_FALSE(wrong.greeted() && wrong.get("/") != 0);
    EXPECT_EQ(handled_, 0);
  }
  for (int version : {TLS1_2_VERSION, TLS1_3_VERSION}) {
    TlsClient first(server_->port(), {.authority = &authority_, .identity = &friendly, .newest = version});
    EXPECT_EQ(first.get("/"), 200);
    const auto session = first.session();
    first.say_goodbye();
    TlsClient second(server_->port(), {.authority = &authority_, .identity = &friendly, .newest = version, .session = session.get()});
    EXPECT_EQ(second.get("/"), 200);
    EXPECT_TRUE(second.resumed());
  }
  expect_alive(&friendly);
}

TEST_F(HttpTls, an_intermediate_authority_may_be_the_one_that_is_trusted) {
  const Identity client("client", &server_identity_);  // signed by a certificate that is no root
  ca_certs_ = server_identity_.write_cert(folder_.file("between.pem"));
  serve(patient());
  EXPECT_EQ(connect({.authority = &authority_, .identity = &server_identity_}).get("/"), 200);
  EXPECT_EQ(connect({.authority = &authority_, .identity = &client}).get("/"), 0);  // for it may not sign
}

TEST_F(HttpTls, big_bodies_go_both_ways) {
  serve(patient());
  TlsClient client(server_->port(), trusting());
  std::string body(kMaxBodyBytes, '\0');
  for (size_t i = 0; i < body.size(); ++i) body[i] = static_cast<char>(i * 2654435761u >> 13);
  ASSERT_TRUE(client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n"));
  ASSERT_TRUE(client.send(body));
  std::string got;
  EXPECT_EQ(client.answer(&got), 200);
  EXPECT_TRUE(got == body);
}

TEST_F(HttpTls, bodies_over_the_limit_are_refused_and_the_answer_arrives) {
  serve(patient());
  TlsClient client(server_->port(), trusting());
  ASSERT_TRUE(client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(kMaxBodyBytes + 1) + "\r\n\r\n"));
  client.send(std::string(size_t{1} << 20, 'x'));
  EXPECT_EQ(client.answer(), 413);
  EXPECT_EQ(handled_, 0);
  expect_alive();
}

TEST_F(HttpTls, requests_sent_while_an_answer_streams_are_answered_after_it) {
  serve(patient());
  TlsClient client(server_->port(), trusting());
  for (int round = 0; round < 3; ++round) {
    ASSERT_TRUE(client.send("GET /count HTTP/1.1\r\nHost: a\r\n\r\n"));
    ASSERT_TRUE(client.wait_for("data: more"));
    ASSERT_TRUE(client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\nGET /o"));
    ASSERT_TRUE(client.wait_for("\r\n0\r\n\r\n"));
    client.take("\r\n0\r\n\r\n");
    std::string body;
    EXPECT_EQ(client.answer(&body), 200);
    EXPECT_EQ(body, "/next");
    ASSERT_TRUE(client.send("ther HTTP/1.1\r\nHost: a\r\n\r\n"));
    EXPECT_EQ(client.answer(&body), 200);
    EXPECT_EQ(body, "/other");
  }
  EXPECT_EQ(gone_, 0);
}

TEST_F(HttpTls, handlers_are_told_when_the_client_leaves_or_vanishes) {
  serve(patient());
  int count = 0;
  for (const char* path : {"/stream", "/hold"}) {
    for (const bool politely : {true, false}) {
      TlsClient client(server_->port(), trusting());
      ASSERT_TRUE(client.send("GET " + std::string(path) + " HTTP/1.1\r\nHost: a\r\n\r\n"));
      wait_handled(++count);
      if (politely) client.say_goodbye();  // a record before the end of the connection, which must not be taken for a request
      else client.hang_up();
      EXPECT_TRUE(wait_gone(count)) << path << politely;
    }
  }
  expect_alive();
}

TEST_F(HttpTls, a_client_that_sent_its_next_request_and_left_ends_its_stream) {
  serve(patient());
  TlsClient client(server_->port(), trusting());
  ASSERT_TRUE(client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"));
  wait_handled(1);
  ASSERT_TRUE(client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
  client.say_goodbye();
  EXPECT_TRUE(wait_gone(1));
}

}  // namespace
}  // namespace accrete::net
