#include "coordinator/api/generation.h"

#include <utility>

namespace accrete::coordinator {
namespace {

double seconds(Clock::duration duration) { return std::chrono::duration<double>(duration).count(); }

const char* reason_name(rpc::FinishReason reason) {
  switch (reason) {
    case rpc::FINISH_STOP: return "stop";
    case rpc::FINISH_LENGTH: return "length";
    case rpc::FINISH_ABORT: return "abort";
    default: return "error";
  }
}

}  // namespace

Generation::Generation(Cluster& cluster, ServingMetrics& metrics, GenerationRequest request, Sink sink)
    : cluster_(cluster), metrics_(metrics), request_(std::move(request)), sink_(std::move(sink)), stops_(request_.stop) {
  if (!request_.skip_text && request_.model->tokenizer) detokenizer_.emplace(*request_.model->tokenizer);
}

Generation::~Generation() {
  if (id_ != 0 && !ended_) cluster_.forget(id_);
}

std::optional<Refusal> Generation::start() {
  rpc::Submit submit;
  submit.mutable_prompt()->Add(request_.prompt.begin(), request_.prompt.end());
  *submit.mutable_sampling() = request_.sampling;
  submit.set_priority(request_.priority);
  begun_ = Clock::now();
  Cluster::Open open = cluster_.open(request_.model->card.name(), std::move(submit), [this](const rpc::TokenChunk& chunk) { take(chunk); });
  if (open.refused) return std::move(open.refused);
  id_ = open.id;
  return std::nullopt;
}

void Generation::cancel() {
  if (id_ != 0 && !ended_) cluster_.cancel(id_);
}

void Generation::measure(const rpc::TokenChunk& chunk) {
  if (chunk.tokens_size() == 0) return;
  const auto now = Clock::now();
  if (!any_token_) {
    any_token_ = true;
    first_ = now;
    metrics_.time_to_first_token.observe(seconds(now - begun_));
    metrics_.prefill_time.observe(seconds(now - begun_));
  } else {
    for (int i = 0; i < chunk.tokens_size(); ++i) metrics_.inter_token_latency.observe(seconds(now - last_) / chunk.tokens_size());
  }
  last_ = now;
}

void Generation::take_text(const rpc::TokenChunk& chunk, Delta& delta) {
  for (const rpc::Token& token : chunk.tokens()) {
    if (stopped_) return;
    ++tokens_;
    delta.tokens.push_back(token);
    if (!detokenizer_) continue;
    StopChecker::Result found = stops_.push(detokenizer_->push(token.id()));
    delta.text += found.text;
    if (!found.stopped) continue;
    stopped_ = true;
    if (chunk.finish() == rpc::FINISH_NONE) cluster_.cancel(id_);  // its answer brings the usage
  }
}

void Generation::finish(const rpc::TokenChunk& chunk, Delta& delta) {
  ended_ = true;
  if (detokenizer_ && !stopped_) {
    StopChecker::Result rest = stops_.push(detokenizer_->flush());
    delta.text += rest.text;
    stopped_ = rest.stopped;
    if (!stopped_) delta.text += stops_.flush();
  }
  delta.finish = stopped_ ? rpc::FINISH_STOP : chunk.finish();
  delta.usage = chunk.usage();
  delta.usage.set_prompt_tokens(static_cast<uint32_t>(request_.prompt.size()));
  delta.usage.set_completion_tokens(tokens_);
  delta.error = chunk.error();
  delta.error_code = chunk.error_code();
  const auto now = Clock::now();
  ++metrics_.finished[reason_name(delta.finish)];
  metrics_.e2e_latency.observe(seconds(now - begun_));
  if (any_token_) metrics_.decode_time.observe(seconds(last_ - first_));
}

void Generation::take(const rpc::TokenChunk& chunk) {
  if (ended_) return;
  measure(chunk);
  Delta delta;
  take_text(chunk, delta);
  delta.prompt_tokens.assign(chunk.prompt_tokens().begin(), chunk.prompt_tokens().end());
  if (chunk.finish() != rpc::FINISH_NONE) finish(chunk, delta);
  const bool news = !delta.text.empty() || !delta.tokens.empty() || !delta.prompt_tokens.empty() || delta.finish != rpc::FINISH_NONE;
  if (news) sink_(std::move(delta));
}

}  // namespace accrete::coordinator
