#include "worker/service/leader_service.h"

#include <fmt/format.h>
#include <signal.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include <chrono>
#include <csignal>

#include "net/protocol.h"
#include "worker/service/messages.h"

namespace accrete::worker {
namespace {

using Clock = std::chrono::steady_clock;

constexpr auto kWatchEvery = std::chrono::milliseconds(50);
constexpr double kReportEvery = 1.0, kStatsEvery = 10.0;  // seconds
constexpr unsigned kFollowerPatience = 60;                // seconds from a stop signal to the leader's last plan

volatile std::sig_atomic_t g_stop_signal = 0;  // a handler can reach nothing else

double seconds_since(Clock::time_point then) { return std::chrono::duration<double>(Clock::now() - then).count(); }

}  // namespace

void install_stop_signals(bool leads) {
  struct sigaction action {};
  // A second signal ends the process at once.
  action.sa_flags = static_cast<int>(SA_RESTART | SA_RESETHAND);
  action.sa_handler = leads ? +[](int number) { g_stop_signal = number; } : +[](int) { alarm(kFollowerPatience); };
  sigaction(SIGTERM, &action, nullptr);
  sigaction(SIGINT, &action, nullptr);
}

LeaderService::LeaderService(Setup setup) : setup_(std::move(setup)) {}

LeaderService::~LeaderService() { finish(); }

void LeaderService::start(Leader& leader) {
  leader_ = &leader;
  net::LeaderLink::Options options;
  options.address = setup_.coordinator;
  options.reconnect_seconds = setup_.options.reconnect_seconds;
  options.hello.set_protocol_version(net::kProtocolVersion);
  options.hello.set_role(rpc::ROLE_LEADER);
  options.hello.set_software_version(ACCRETE_VERSION);
  options.hello.set_api_key(setup_.options.api_key);
  *options.hello.mutable_model() = setup_.card;
  *options.hello.mutable_shape() = setup_.shape;
  options.hello.set_name(fmt::format("{}:{}", setup_.shape.ranks(0).host(), getpid()));
  net::LeaderLink::Callbacks callbacks;
  callbacks.on_connected = [this](const rpc::Welcome& welcome) {
    spdlog::info("replica.joined id={} coordinator={}", welcome.replica_id(), setup_.coordinator);
    send_report();
  };
  callbacks.on_frame = [this](rpc::Frame&& frame) { on_frame(std::move(frame)); };
  callbacks.on_broken = [this](const std::string& why) {
    spdlog::warn("replica.coordinator_gone why=\"{}\" retry_s={}", why, setup_.options.reconnect_seconds);
    cancel_all();  // their clients are gone with it
  };
  callbacks.on_lost = [this](const std::string& why) {
    spdlog::error("replica.coordinator_lost why=\"{}\"", why);
    lost_ = true;
    leader_->stop();
  };
  link_ = std::make_unique<net::LeaderLink>(std::move(options), std::move(callbacks));
  link_->start();
  watcher_ = std::thread([this] { watch(); });
}

int LeaderService::finish() {
  stop_watching_ = true;
  if (watcher_.joinable()) watcher_.join();
  if (link_) link_->stop();
  return lost_ ? 1 : 0;
}

size_t LeaderService::open() const {
  const std::lock_guard lock(mutex_);
  return theirs_.size();
}

void LeaderService::on_frame(rpc::Frame&& frame) {
  switch (frame.body_case()) {
    case rpc::Frame::kSubmit: return submit(frame.submit());
    case rpc::Frame::kCancel: return cancel(frame.cancel().request_id());
    case rpc::Frame::kDrain: draining_ = true; return send_report();
    case rpc::Frame::kResume: draining_ = false; return send_report();
    default: spdlog::warn("replica.unexpected_frame body={}", static_cast<int>(frame.body_case()));
  }
}

void LeaderService::submit(const rpc::Submit& submit) {
  Request request = to_request(submit);
  {
    const std::lock_guard lock(mutex_);
    request.id = next_id_++;
    theirs_[request.id] = submit.request_id();
    ours_[submit.request_id()] = request.id;
  }
  leader_->submit(std::move(request));
}

void LeaderService::cancel(uint64_t id) {
  const std::lock_guard lock(mutex_);
  const auto found = ours_.find(id);
  if (found != ours_.end()) leader_->cancel(found->second);
}

void LeaderService::cancel_all() {
  const std::lock_guard lock(mutex_);
  for (const auto& [ours, theirs] : theirs_) leader_->cancel(ours);
}

// The step thread's outputs: one batch an iteration.
void LeaderService::take(const std::vector<RequestOutput>& outputs) {
  rpc::Frame frame;
  rpc::TokenBatch& batch = *frame.mutable_token_batch();
  {
    const std::lock_guard lock(mutex_);
    for (const RequestOutput& output : outputs) {
      const auto found = theirs_.find(output.id);
      if (found == theirs_.end()) continue;
      fill_chunk(output, found->second, *batch.add_chunks());
      if (output.finish == FinishReason::none) continue;
      ours_.erase(found->second);
      theirs_.erase(found);
    }
  }
  if (batch.chunks_size() > 0) link_->send(std::move(frame));
}

void LeaderService::send_report() {
  rpc::Frame frame;
  *frame.mutable_replica_report() = replica_report(leader_->status());
  frame.mutable_replica_report()->set_draining(draining_);
  link_->send(std::move(frame));
}

void LeaderService::log_stats(double seconds) {
  const LeaderStatus now = leader_->status();
  const auto rate = [&](uint64_t after, uint64_t before) { return static_cast<double>(after - before) / seconds; };
  if (now.counters.iterations != logged_.counters.iterations) {
    double used = 0.0;
    for (size_t rank = 0; rank < now.pages_free.size(); ++rank) {
      const auto total = static_cast<double>(setup_.shape.ranks(static_cast<int>(rank)).pages_total());
      used = std::max(used, 100.0 * (1.0 - static_cast<double>(now.pages_free[rank]) / total));
    }
    spdlog::info("replica.stats prompt_tok_s={:.1f} generation_tok_s={:.1f} running={} waiting={} kv_usage={:.1f}% compression={:.2f}{}",
                 rate(now.counters.prompt_tokens, logged_.counters.prompt_tokens),
                 rate(now.counters.generation_tokens, logged_.counters.generation_tokens), now.running, now.waiting, used, now.compression,
                 setup_.card.dmc().synthetic_cr() > 0.0 ? " (synthetic)" : "");
  }
  logged_ = now;
}

void LeaderService::watch() {
  Clock::time_point reported = Clock::now(), logged = Clock::now(), drain_began;
  int64_t last_running = -1, last_waiting = -1;
  bool stopping = false;
  while (!stop_watching_) {
    std::this_thread::sleep_for(kWatchEvery);
    if (g_stop_signal != 0 && !stopping) {
      stopping = draining_ = true;
      drain_began = Clock::now();
      spdlog::info("replica.draining signal={} open={}", static_cast<int>(g_stop_signal), open());
      send_report();
    }
    if (stopping && (open() == 0 || seconds_since(drain_began) > setup_.options.shutdown_seconds)) {
      spdlog::info("replica.stopping open={}", open());
      return leader_->stop();
    }
    const LeaderStatus status = leader_->status();
    if (status.running != last_running || status.waiting != last_waiting || seconds_since(reported) > kReportEvery) {
      last_running = status.running;
      last_waiting = status.waiting;
      reported = Clock::now();
      send_report();
    }
    if (seconds_since(logged) > kStatsEvery) {
      log_stats(seconds_since(logged));
      logged = Clock::now();
    }
  }
}

}  // namespace accrete::worker
