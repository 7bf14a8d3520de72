#include "launch/bench/load_generator.h"

#include <fmt/format.h>

#include <boost/asio/co_spawn.hpp>
#include <boost/asio/detached.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/redirect_error.hpp>
#include <boost/asio/this_coro.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <cmath>
#include <limits>
#include <random>

#include "launch/terminal/progress.h"

namespace accrete::launch {
namespace {

namespace asio = boost::asio;

// The state of one run; lives on the io_context's one thread.
struct Run {
  const std::vector<BenchPrompt>& prompts;
  const LoadPlan& plan;
  const SendFn& send;
  std::vector<double> due;
  std::vector<RequestRecord> records;
  BenchClock clock;
  Progress progress;
  asio::steady_timer room;  // its cancellation says that a request ended
  int64_t open = 0;
  int64_t done = 0;
};

asio::awaitable<void> one_request(Run& run, size_t index) {
  run.records[index] = co_await run.send(run.prompts[index], run.clock);
  --run.open;
  run.progress.update(++run.done);
  run.room.cancel();
}

asio::awaitable<void> wait_until(Run& run, double when) {
  asio::steady_timer timer(co_await asio::this_coro::executor);
  const double wait = when - run.clock.now();
  if (wait <= 0) co_return;
  timer.expires_after(std::chrono::duration_cast<asio::steady_timer::duration>(std::chrono::duration<double>(wait)));
  co_await timer.async_wait(asio::use_awaitable);
}

asio::awaitable<void> send_all(Run& run) {
  const auto executor = co_await asio::this_coro::executor;
  for (size_t i = 0; i < run.prompts.size(); ++i) {
    co_await wait_until(run, run.due[i]);
    while (run.plan.max_concurrency > 0 && run.open >= run.plan.max_concurrency) {
      boost::system::error_code ended;
      run.room.expires_after(std::chrono::hours(1));
      co_await run.room.async_wait(asio::redirect_error(asio::use_awaitable, ended));
    }
    ++run.open;
    asio::co_spawn(executor, one_request(run, i), asio::detached);
  }
}

}  // namespace

std::vector<double> arrival_times(size_t count, const LoadPlan& plan) {
  std::vector<double> times(count, 0.0);
  if (std::isinf(plan.request_rate)) return times;
  std::mt19937_64 source(plan.seed);
  std::gamma_distribution<double> gap(plan.burstiness, 1.0 / (plan.request_rate * plan.burstiness));
  for (size_t i = 1; i < count; ++i) times[i] = times[i - 1] + gap(source);
  return times;
}

LoadResult run_load(const std::vector<BenchPrompt>& prompts, const LoadPlan& plan, const SendFn& send) {
  asio::io_context context(1);
  Run run{.prompts = prompts,
          .plan = plan,
          .send = send,
          .due = arrival_times(prompts.size(), plan),
          .records = std::vector<RequestRecord>(prompts.size()),
          .clock = {},
          .progress = Progress("requests", static_cast<int64_t>(prompts.size())),
          .room = asio::steady_timer(context)};
  asio::co_spawn(context, send_all(run), [](std::exception_ptr error) {
    if (error) std::rethrow_exception(error);
  });
  context.run();
  return {std::move(run.records), run.clock.now()};
}

}  // namespace accrete::launch
