// The HTTP server over real sockets: what clients do wrong, and what ill-meaning ones do on purpose. No test measures time: each timeout that a
// test relies on is short, the others are hours, and kHang is reached by a hang alone.
#include "net/http_server.h"

#include <gtest/gtest.h>

#include <atomic>
#include <boost/asio/experimental/awaitable_operators.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <condition_variable>
#include <future>
#include <mutex>
#include <thread>

#include "tests/net/raw_client.h"

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

// A server on a thread of its own. /echo answers with the body, /throw breaks, /stream writes forever, /hold says nothing; the two last count
// when they end because the client is gone.
class HttpServerTest : public testing::Test {
 protected:
  void serve(HttpServer::Options options) {
    options.host = "127.0.0.1";
    options.port = 0;
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

  void TearDown() override {
    io_.stop();
    if (thread_.joinable()) thread_.join();
  }

  asio::awaitable<void> handle(HttpExchange& exchange) {
    ++handled_;
    const std::string path(exchange.request().target());
    if (path == "/throw") throw std::runtime_error("a handler that breaks");
    if (path == "/stream") co_return co_await stream(exchange);
    if (path == "/hold") {
      co_await exchange.until_gone();
      co_return told();
    }
    co_await exchange.respond(text(200, path == "/echo" ? exchange.request().body() : path));
  }

  asio::awaitable<void> stream(HttpExchange& exchange) {
    co_await exchange.begin_stream("text/event-stream");
    const auto writes = [&]() -> asio::awaitable<void> {
      asio::steady_timer pause(io_);
      while (co_await exchange.write("data: more\n\n")) {
        pause.expires_after(std::chrono::milliseconds(1));
        co_await pause.async_wait(asio::use_awaitable);
      }
    };
    co_await (writes() || exchange.until_gone());
    told();
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
  // The server answers a well-behaved client.
  void expect_alive() {
    RawClient client(server_->port());
    ASSERT_TRUE(client.send("GET /alive HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    std::string body;
    EXPECT_EQ(client.answer(&body), 200);
    EXPECT_EQ(body, "/alive");
    EXPECT_TRUE(client.ended());
  }

  asio::io_context io_{1};
  std::unique_ptr<HttpServer> server_;
  std::thread thread_;
  std::mutex mutex_;
  std::condition_variable changed_;
  int gone_ = 0;
  std::atomic<int> handled_ = 0;
};

TEST_F(HttpServerTest, a_dribbled_header_is_cut_off_and_others_are_served_meanwhile) {
  HttpServer::Options options = patient();
  options.read_patience = kShort;
  serve(options);
  RawClient loris(server_->port());
  ASSERT_TRUE(loris.send("GET /slow HTTP/1.1\r\nX-Slow: "));
  expect_alive();
  // One byte at a time keeps no connection: the patience is for the whole request. 4000 bytes stay below every limit of a header's size.
  bool open = true;
  for (int i = 0; i < 4000 && open; ++i) {
    open = loris.send("x");
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  EXPECT_FALSE(open);
  EXPECT_EQ(handled_, 1);
}

TEST_F(HttpServerTest, a_body_that_does_not_come_is_cut_off) {
  HttpServer::Options options = patient();
  options.read_patience = kShort;
  serve(options);
  RawClient client(server_->port());
  ASSERT_TRUE(client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf"));
  EXPECT_TRUE(client.ended());
  EXPECT_EQ(handled_, 0);
  expect_alive();
}

TEST_F(HttpServerTest, a_connection_may_rest_between_requests_for_the_idle_patience_alone) {
  HttpServer::Options options = patient();
  options.idle_patience = kShort;
  serve(options);
  RawClient silent(server_->port());
  EXPECT_TRUE(silent.ended());
  // On a machine so busy that the request comes too late, another connection tries again.
  for (int status = 0; status == 0;) {
    RawClient kept(server_->port());
    if (kept.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n")) status = kept.answer();
    EXPECT_TRUE(kept.ended());
  }
}

TEST_F(HttpServerTest, bodies_over_the_limit_are_refused_by_their_announced_length) {
  serve(patient());
  RawClient client(server_->port());
  const std::string body(size_t{10} << 20, 'x');
  ASSERT_TRUE(client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n"));
  client.send(body);  // as clients do that do not wait; the server reads on for a while so that the answer can be read
  std::string why;
  EXPECT_EQ(client.answer(&why), 413);
  EXPECT_NE(why.find("8388608"), std::string::npos) << why;
  EXPECT_NE(client.head.find("Connection: close"), std::string::npos) << client.head;
  EXPECT_TRUE(client.ended());
  EXPECT_EQ(handled_, 0);
  expect_alive();
}

TEST_F(HttpServerTest, chunked_bodies_over_the_limit_are_refused_when_they_pass_it) {
  serve(patient());
  RawClient client(server_->port());
  ASSERT_TRUE(client.send("POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"));
  const std::string chunk = "100000\r\n" + std::string(size_t{1} << 20, 'x') + "\r\n";
  for (int i = 0; i < 10 && client.send(chunk); ++i) {
  }
  EXPECT_EQ(client.answer(), 413);
  EXPECT_TRUE(client.ended());
  EXPECT_EQ(handled_, 0);
}

TEST_F(HttpServerTest, a_body_of_exactly_the_limit_is_taken) {
  serve(patient());
  RawClient client(server_->port());
  const std::string body(kMaxBodyBytes, 'x');
  ASSERT_TRUE(client.send("POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: " + std::to_string(body.size()) + "\r\n\r\n"));
  ASSERT_TRUE(client.send(body));
  std::string got;
  EXPECT_EQ(client.answer(&got), 200);
  EXPECT_TRUE(got == body);
}

TEST_F(HttpServerTest, one_connection_too_many_is_told_so_and_the_earlier_ones_are_served_on) {
  HttpServer::Options options = patient();
  options.max_connections = 2;
  serve(options);
  const std::string request = "GET /a HTTP/1.1\r\nHost: a\r\n\r\n";
  RawClient first(server_->port());
  ASSERT_TRUE(first.send(request));
  EXPECT_EQ(first.answer(), 200);  // an answer: the server has counted it
  {
    RawClient second(server_->port());
    ASSERT_TRUE(second.send(request));
    EXPECT_EQ(second.answer(), 200);
    RawClient third(server_->port());
    ASSERT_TRUE(third.send(request));
    EXPECT_EQ(third.answer(), 503);
    EXPECT_TRUE(third.ended());
    ASSERT_TRUE(first.send(request));
    EXPECT_EQ(first.answer(), 200);
    ASSERT_TRUE(second.send("GET /a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"));
    EXPECT_EQ(second.answer(), 200);
    EXPECT_TRUE(second.ended());
  }
  expect_alive();  // a place is free again
}

TEST_F(HttpServerTest, malformed_requests_are_answered_400_and_closed) {
  serve(patient());
  const std::string cases[] = {
      "HELLO\r\n\r\n", "GET\r\n\r\n", "GET /\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "GET / FTP/1.1\r\n\r\n", " GET / HTTP/1.1\r\n\r\n", "GET  / HTTP/1.1\r\n\r\n",
      "G\x01T / HTTP/1.1\r\n\r\n", "GET /\x7f HTTP/1.1\r\n\r\n", "GET / HTTP/1.1\r\nno colon\r\n\r\n", "GET / HTTP/1.1\r\n: no name\r\n\r\n", "GET / HTTP/1.1\r\nA b: c\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 1x\r\n\r\n", "POST / HTTP/1.1\r\nContent-Length: 99999999999999999999999\r\n\r\n",
      "POST / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab", "POST / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
      "POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "GET / HTTP/1.1\r\nX: " + std::string(100000, 'x') + "\r\n\r\n",
      "GET /" + std::string(100000, 'x') + " HTTP/1.1\r\n\r\n", std::string("\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 11) + std::string(200, '\x80')};
  for (const std::string& bytes : cases) {
    RawClient client(server_->port());
    client.send(bytes);
    EXPECT_EQ(client.answer(), 400) << bytes.substr(0, 80);
    EXPECT_TRUE(client.ended()) << bytes.substr(0, 80);
  }
  EXPECT_EQ(handled_, 0);
  expect_alive();
}

TEST_F(HttpServerTest, requests_cut_short_end_without_a_word_to_the_handler) {
  serve(patient());
  const std::string whole = "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc";
  for (size_t size = 0; size < whole.size(); ++size) {
    RawClient client(server_->port());
    ASSERT_TRUE(client.send(whole.substr(0, size)));
    client.end_writing();
    const int status = client.answer();
    EXPECT_TRUE(status == 0 || status == 400) << size;
    EXPECT_TRUE(client.ended()) << size;
  }
  EXPECT_EQ(handled_, 0);
  expect_alive();
}

TEST_F(HttpServerTest, pipelined_requests_are_answered_in_their_order) {
  serve(patient());
  RawClient client(server_->port());
  std::string requests;
  for (int i = 0; i < 20; ++i) {
    requests += i % 2 == 0 ? "GET /" + std::to_string(i) + " HTTP/1.1\r\nHost: a\r\n\r\n"
                           : "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n" + std::to_string(10 + i);
  }
  ASSERT_TRUE(client.send(requests));
  for (int i = 0; i < 20; ++i) {
    std::string body;
    ASSERT_EQ(client.answer(&body), 200) << i;
    EXPECT_EQ(body, i % 2 == 0 ? "/" + std::to_string(i) : std::to_string(10 + i));
  }
  // In pieces that fall anywhere, too.
  for (char byte : requests) ASSERT_TRUE(client.send({&byte, 1}));
  for (int i = 0; i < 20; ++i) ASSERT_EQ(client.answer(), 200) << i;
}

TEST_F(HttpServerTest, connections_are_kept_as_the_client_asks) {
  serve(patient());
  const std::pair<const char*, bool> cases[] = {{"GET / HTTP/1.1\r\nHost: a\r\n\r\n", true},
                                                {"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", false},
                                                {"GET / HTTP/1.0\r\n\r\n", false},
                                                {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true}};
  for (const auto& [request, kept] : cases) {
    RawClient client(server_->port());
    ASSERT_TRUE(client.send(request));
    ASSERT_EQ(client.answer(), 200) << request;
    if (!kept) {
      EXPECT_TRUE(client.ended()) << request;
      continue;
    }
    ASSERT_TRUE(client.send(request));
    EXPECT_EQ(client.answer(), 200) << request;
  }
}

TEST_F(HttpServerTest, head_has_the_length_and_no_body) {
  serve(patient());
  RawClient client(server_->port());
  ASSERT_TRUE(client.send("HEAD /four HTTP/1.1\r\nHost: a\r\n\r\nGET /next HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_EQ(client.answer(nullptr, true), 200);
  std::string body;
  EXPECT_EQ(client.answer(&body), 200);
  EXPECT_EQ(body, "/next");
}

TEST_F(HttpServerTest, a_handler_that_breaks_costs_its_connection_alone) {
  serve(patient());
  RawClient client(server_->port());
  ASSERT_TRUE(client.send("GET /throw HTTP/1.1\r\nHost: a\r\n\r\n"));
  EXPECT_TRUE(client.ended());
  expect_alive();
}

TEST_F(HttpServerTest, a_streamed_answers_handler_is_told_when_the_client_hangs_up) {
  serve(patient());
  RawClient client(server_->port());
  ASSERT_TRUE(client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"));
  ASSERT_TRUE(client.wait_for("\r\nc\r\ndata: more\n\n\r\nc\r\n"));
  EXPECT_NE(client.rest().find("Transfer-Encoding: chunked"), std::string::npos);
  client.hang_up();
  EXPECT_TRUE(wait_gone(1));
  expect_alive();
}

TEST_F(HttpServerTest, a_handler_that_says_nothing_is_told_when_the_client_hangs_up) {
  serve(patient());
  RawClient client(server_->port()), stays(server_->port());
  ASSERT_TRUE(stays.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"));
  ASSERT_TRUE(client.send("GET /hold HTTP/1.1\r\nHost: a\r\n\r\n"));
  wait_handled(2);
  client.hang_up();
  EXPECT_TRUE(wait_gone(1));
  expect_alive();
  EXPECT_EQ(gone_, 1);
}

TEST_F(HttpServerTest, a_pipelining_client_that_hangs_up_ends_its_stream) {
  serve(patient());
  RawClient client(server_->port());
  ASSERT_TRUE(client.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"));
  ASSERT_TRUE(client.wait_for("data: more"));
  ASSERT_TRUE(client.send("GET /next HTTP/1.1\r\nHost: a\r\n\r\n"));  // unread, it hides the FIN from until_gone; the writes fail
  client.hang_up();
  EXPECT_TRUE(wait_gone(1));
  expect_alive();
}

TEST_F(HttpServerTest, stopping_takes_no_new_connection_and_leaves_the_open_ones) {
  serve(patient());
  RawClient open(server_->port());
  ASSERT_TRUE(open.send("GET /stream HTTP/1.1\r\nHost: a\r\n\r\n"));
  ASSERT_TRUE(open.wait_for("data: more"));
  std::promise<void> stopped;
  asio::post(io_, [&] {
    server_->stop();
    stopped.set_value();
  });
  stopped.get_future().wait();
  const size_t before = open.rest().size();
  EXPECT_TRUE(open.read_until([&] { return open.rest().size() > before + 1000; }));
  EXPECT_THROW(RawClient(server_->port()), boost::system::system_error);
}

}  // namespace
}  // namespace accrete::net
