// HttpApi: the routes of the HTTP server. Owned by the I/O thread.
#pragma once

#include <boost/asio/io_context.hpp>
#include <string>

#include "coordinator/api/generation.h"
#include "coordinator/api/request_json.h"
#include "net/http_server.h"

namespace accrete::coordinator {

class HttpApi {
 public:
  struct Options {
    std::string api_key;  // empty: open
  };
  HttpApi(boost::asio::io_context& io, Cluster& cluster, ServingMetrics& metrics, Options options);

  boost::asio::awaitable<void> handle(net::HttpExchange& exchange);
  void drain() { draining_ = true; }  // new requests are refused with 503

 private:
  boost::asio::awaitable<void> route(net::HttpExchange& exchange, const std::string& path);
  boost::asio::awaitable<void> post(net::HttpExchange& exchange, const std::string& path);
  boost::asio::awaitable<void> get(net::HttpExchange& exchange, const std::string& path);
  boost::asio::awaitable<void> generate(net::HttpExchange& exchange, ApiRequest request);
  boost::asio::awaitable<void> health(net::HttpExchange& exchange, bool generate);
  net::HttpResponse tokenize(std::string_view body) const;
  net::HttpResponse detokenize(std::string_view body) const;
  net::HttpResponse tokenizer_info() const;
  net::HttpResponse models_page() const;
  net::HttpResponse cluster_page() const;
  net::HttpResponse set_draining(const std::string& path);
  bool authorized(const net::HttpExchange& exchange, const std::string& path) const;
  std::shared_ptr<const ModelEntry> model_of(const std::string& name) const;  // throws FieldError-like UnknownModel

  boost::asio::io_context& io_;
  Cluster& cluster_;
  ServingMetrics& metrics_;
  Options options_;
  bool draining_ = false;
  uint64_t next_answer_ = 1;
};

// Compares in a time that depends on `given` alone.
bool equal_secret(std::string_view given, std::string_view secret);

// The status page, self-contained.
extern const char* const kStatusPage;

}  // namespace accrete::coordinator
