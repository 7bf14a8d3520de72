#include "launch/bench/rpc_backend.h"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <memory>
#include <vector>

#include "net/rpc_client.h"

namespace accrete::launch {
namespace {

namespace asio = boost::asio;

// The run's connection, made by whoever comes first; the others wait on `ready`, whose cancellation says that it is there or failed.
struct Shared {
  RpcTarget target;
  bool connecting = false;
  std::shared_ptr<net::RpcClient> client;
  std::string error;
  std::vector<std::shared_ptr<asio::steady_timer>> waiting;

  bool settled() const { return client != nullptr || !error.empty(); }
};

asio::awaitable<void> connect(Shared& shared) {
  shared.connecting = true;
  try {
    const net::RpcClient::Target target{shared.target.host, static_cast<uint16_t>(shared.target.port), shared.target.api_key};
    shared.client = co_await net::RpcClient::connect(co_await asio::this_coro::executor, target);
  } catch (const std::exception& error) {
    shared.error = error.what();
  }
  for (const auto& timer : shared.waiting) timer->cancel();
}

asio::awaitable<void> ready(Shared& shared) {
  if (!shared.connecting) co_await connect(shared);
  while (!shared.settled()) {
    const auto timer = std::make_shared<asio::steady_timer>(co_await asio::this_coro::executor, std::chrono::hours(1));
    shared.waiting.push_back(timer);
    boost::system::error_code woken;
    co_await timer->async_wait(asio::redirect_error(asio::use_awaitable, woken));
  }
}

rpc::Generate make_request(const RpcTarget& target, const BenchPrompt& prompt) {
  rpc::Generate request;
  request.set_model(target.model);
  for (int32_t token : prompt.tokens) request.mutable_tokens()->add_ids(token);
  rpc::SamplingParams& sampling = *request.mutable_sampling();
  sampling.set_temperature(static_cast<float>(target.temperature));
  sampling.set_top_p(1.0f);
  sampling.set_repetition_penalty(1.0f);
  sampling.set_max_tokens(static_cast<uint32_t>(prompt.output_len));
  sampling.set_ignore_eos(target.ignore_eos);
  request.set_stream(true);
  request.set_skip_text(true);
  return request;
}

void take_output(const rpc::Output& output, const BenchClock& clock, RequestRecord& record) {
  if (output.tokens_size() > 0) record.token_times.push_back(clock.now());
  record.output_tokens += output.tokens_size();
  if (output.finish() == rpc::FINISH_NONE) return;
  record.input_tokens = output.usage().prompt_tokens();
  record.compression_ratio = output.usage().compression_ratio();
  if (output.finish() == rpc::FINISH_ERROR || output.finish() == rpc::FINISH_ABORT) record.error = "the request was ended by the server";
}

asio::awaitable<RequestRecord> send(std::shared_ptr<Shared> shared, BenchPrompt prompt, const BenchClock& clock) {
  RequestRecord record;
  co_await ready(*shared);
  record.sent = clock.now();
  if (shared->client == nullptr) {
    record.error = shared->error;
  } else {
    const auto error = co_await shared->client->generate(make_request(shared->target, prompt),
                                                         [&](const rpc::Output& output) { take_output(output, clock, record); });
    if (error) record.error = error->message();
  }
  record.ended = clock.now();
  co_return record;
}

// The run's io_context must not be kept alive by the connection: it closes when the last request has ended.
asio::awaitable<RequestRecord> send_counted(std::shared_ptr<Shared> shared, std::shared_ptr<int> open, BenchPrompt prompt, const BenchClock& clock) {
  ++*open;
  RequestRecord record = co_await send(shared, std::move(prompt), clock);
  if (--*open == 0 && shared->client != nullptr) {
    shared->client->close();
    shared->client = nullptr;
    shared->connecting = false;
  }
  co_return record;
}

}  // namespace

SendFn rpc_backend(RpcTarget target) {
  auto shared = std::make_shared<Shared>();
  shared->target = std::move(target);
  return [shared, open = std::make_shared<int>(0)](const BenchPrompt& prompt, const BenchClock& clock) {
    return send_counted(shared, open, prompt, clock);
  };
}

}  // namespace accrete::launch
