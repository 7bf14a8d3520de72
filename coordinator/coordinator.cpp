#include "coordinator/coordinator.h"

#include <spdlog/spdlog.h>

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/post.hpp>
#include <chrono>
#include <future>
#include <thread>

#include "coordinator/api/http_api.h"
#include "coordinator/api/response_json.h"
#include "coordinator/rpc_server.h"

namespace accrete::coordinator {

namespace asio = boost::asio;

struct Coordinator::State {
  explicit State(const CoordinatorOptions& o)
      : cluster({o.max_queued, o.chat_template}),
        api(io, cluster, metrics, {o.api_key}),
        http(io, {.host = o.host, .port = o.port, .max_connections = o.max_connections, .tls = o.tls}, [this](net::HttpExchange& exchange) { return api.handle(exchange); },
             [](unsigned status, const std::string& message) { return error_response(status, message); }),
        rpc(io, {o.rpc_host, o.rpc_port, o.api_key, o.heartbeat_ms, o.hello_patience}, cluster, metrics) {}

  // Runs `work` on the I/O thread and waits for its value.
  template <class Work>
  auto on_io(Work work) {
    std::packaged_task<decltype(work())()> task(std::move(work));
    auto result = task.get_future();
    asio::post(io, [&task] { task(); });
    return result.get();
  }

  Cluster cluster;  // outlives io: coroutines that io still holds when it goes hold generations
  ServingMetrics metrics;
  asio::io_context io{1};
  HttpApi api;
  net::HttpServer http;
  RpcServer rpc;
  asio::executor_work_guard<asio::io_context::executor_type> guard{io.get_executor()};
  std::thread thread;
};

Coordinator::Coordinator(const CoordinatorOptions& options) : state_(std::make_unique<State>(options)) {
  state_->http.start();
  state_->rpc.start();
  spdlog::info("coordinator.listening http={}:{} rpc={}:{} tls={}", options.host, http_port(), options.rpc_host, rpc_port(), options.tls ? "on" : "off");
  state_->thread = std::thread([state = state_.get()] { state->io.run(); });
}

Coordinator::~Coordinator() {
  state_->io.stop();
  state_->thread.join();
  state_->cluster.shut_down();  // before the coroutines that hold generations go with io
}

uint16_t Coordinator::http_port() const { return state_->http.port(); }
uint16_t Coordinator::rpc_port() const { return state_->rpc.port(); }
bool Coordinator::serving() const {
  return state_->on_io([state = state_.get()] { return state->cluster.can_serve(); });
}

void Coordinator::drain(double seconds) {
  state_->on_io([state = state_.get()] {
    state->api.drain();
    state->rpc.drain();
    return true;
  });
  const auto deadline = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  const auto open = [state = state_.get()] { return state->cluster.open_requests(); };
  while (std::chrono::steady_clock::now() < deadline && state_->on_io(open) > 0) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  std::this_thread::sleep_for(std::chrono::milliseconds(50));  // last answers on their way out
}

}  // namespace accrete::coordinator
