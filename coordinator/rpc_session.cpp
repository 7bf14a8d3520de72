#include "coordinator/rpc_session.h"

#include <fmt/format.h>

#include "coordinator/api/prepare.h"

namespace accrete::coordinator {
namespace {

void check_range(const char* field, double value, double low, double high) {
  if (!(value >= low && value <= high)) throw FieldError(field, fmt::format("{} must be in [{}, {}], it is {}", field, low, high, value));
}

// What the JSON parser checks for HTTP.
void check_sampling(const rpc::SamplingParams& s) {
  check_range("sampling.temperature", s.temperature(), 0.0, 100.0);
  check_range("sampling.top_p", s.top_p(), 1e-9, 1.0);
  check_range("sampling.top_k", s.top_k(), -1, INT32_MAX);
  check_range("sampling.min_p", s.min_p(), 0.0, 1.0);
  check_range("sampling.presence_penalty", s.presence_penalty(), -2.0, 2.0);
  check_range("sampling.frequency_penalty", s.frequency_penalty(), -2.0, 2.0);
  check_range("sampling.repetition_penalty", s.repetition_penalty(), 1e-6, 1e6);
  check_range("sampling.logprobs", s.logprobs(), 0, 20);
  check_range("sampling.prompt_logprobs", s.prompt_logprobs(), 0, 20);
}

// Proto3's zero means "not said" where zero is no sensible value.
rpc::SamplingParams with_defaults(rpc::SamplingParams s) {
  if (s.top_p() == 0.0f) s.set_top_p(1.0f);
  if (s.repetition_penalty() == 0.0f) s.set_repetition_penalty(1.0f);
  if (s.max_tokens() == 0 && !s.has_prompt_logprobs()) s.set_max_tokens(16);
  return s;
}

void add_delta(Delta&& delta, rpc::Output& output) {
  output.mutable_text()->append(delta.text);
  for (rpc::Token& token : delta.tokens) *output.add_tokens() = std::move(token);
  for (rpc::Token& token : delta.prompt_tokens) *output.add_prompt_tokens() = std::move(token);
  output.set_finish(delta.finish);
  if (delta.finish != rpc::FINISH_NONE) *output.mutable_usage() = delta.usage;
}

}  // namespace

void RpcClientSession::refuse(uint64_t id, rpc::ErrorCode code, const std::string& message, const std::string& param) {
  rpc::Frame frame;
  rpc::Error& error = *frame.mutable_error();
  error.set_request_id(id);
  error.set_code(code);
  error.set_message(message);
  error.set_param(param);
  if (code == rpc::ERROR_QUEUE_FULL) error.set_retry_after_ms(1000);
  connection_.send(frame);
}

void RpcClientSession::on_frame(const rpc::Frame& in, bool draining) {
  rpc::Frame out;
  switch (in.body_case()) {
    case rpc::Frame::kGenerate:
      if (draining) return refuse(in.generate().request_id(), rpc::ERROR_UNAVAILABLE, "the coordinator is shutting down");
      return generate(in.generate());
    case rpc::Frame::kCancel: {
      const auto found = open_.find(in.cancel().request_id());
      if (found != open_.end()) found->second->generation->cancel();
      return;
    }
    case rpc::Frame::kClusterQuery:
      *out.mutable_cluster_state() = cluster_.state();
      out.mutable_cluster_state()->set_request_id(in.cluster_query().request_id());
      break;
    case rpc::Frame::kHealthQuery:
      out.mutable_health()->set_request_id(in.health_query().request_id());
      out.mutable_health()->set_serving(!draining && cluster_.can_serve());
      if (!out.health().serving()) out.mutable_health()->set_reason("no replica is up and taking requests");
      break;
    case rpc::Frame::kDrain: return set_draining(in.drain().request_id(), in.drain().replica_id(), true);
    case rpc::Frame::kResume: return set_draining(in.resume().request_id(), in.resume().replica_id(), false);
    default: return refuse(0, rpc::ERROR_INVALID_ARGUMENT, "a client may send Generate, Cancel, ClusterQuery, HealthQuery, Drain and Resume");
  }
  connection_.send(out);
}

void RpcClientSession::set_draining(uint64_t id, const std::string& replica, bool draining) {
  if (!cluster_.set_draining(replica, draining)) return refuse(id, rpc::ERROR_NOT_FOUND, fmt::format("there is no replica '{}'", replica), "replica_id");
  rpc::Frame frame;
  frame.mutable_ack()->set_request_id(id);
  connection_.send(frame);
}

GenerationRequest RpcClientSession::prepare(const rpc::Generate& request, const std::shared_ptr<const ModelEntry>& model) const {
  ApiRequest api;
  api.sampling = with_defaults(request.sampling());
  check_sampling(api.sampling);
  api.has_temperature = api.has_top_p = api.has_top_k = api.has_repetition_penalty = true;
  api.max_tokens = api.sampling.max_tokens();
  api.stop.assign(request.stop().begin(), request.stop().end());
  api.priority = request.priority();
  switch (request.prompt_case()) {
    case rpc::Generate::kText: api.prompts.emplace_back(request.text()); break;
    case rpc::Generate::kTokens: api.prompts.emplace_back(std::vector<int32_t>(request.tokens().ids().begin(), request.tokens().ids().end())); break;
    case rpc::Generate::kChat:
      api.chat = true;
      for (const rpc::ChatMessage& message : request.chat().messages()) api.messages.push_back({message.role(), message.content()});
      break;
    case rpc::Generate::PROMPT_NOT_SET: throw FieldError("prompt", "prompt is missing: set text, tokens or chat");
  }
  GenerationRequest prepared = std::move(coordinator::prepare(api, model).front().request);
  prepared.skip_text = request.skip_text();
  return prepared;
}

void RpcClientSession::generate(const rpc::Generate& request) {
  const uint64_t id = request.request_id();
  if (id == 0 || open_.contains(id)) return refuse(id, rpc::ERROR_INVALID_ARGUMENT, "request_id must be new and not 0", "request_id");
  const auto model = cluster_.model(request.model());
  if (!model && cluster_.models().empty()) return refuse(id, rpc::ERROR_UNAVAILABLE, "no replica has joined yet");
  if (!model) return refuse(id, rpc::ERROR_UNKNOWN_MODEL, fmt::format("the model '{}' does not exist", request.model()), "model");
  try {
    auto open = std::make_shared<Open>();
    open->stream = request.stream();
    open->generation = std::make_unique<Generation>(cluster_, metrics_, prepare(request, model), [this, id](Delta&& delta) { on_delta(id, std::move(delta)); });
    open_[id] = open;
    if (const auto refusal = open->generation->start()) {
      open_.erase(id);
      refuse(id, refusal->code, refusal->message, refusal->param);
    }
  } catch (const FieldError& error) {
    refuse(id, rpc::ERROR_INVALID_ARGUMENT, error.what(), error.param);
  }
}

void RpcClientSession::on_delta(uint64_t id, Delta&& delta) {
  const auto found = open_.find(id);
  if (found == open_.end()) return;
  const std::shared_ptr<Open> open = found->second;  // alive until this delta is done with
  const rpc::FinishReason finish = delta.finish;
  if (finish != rpc::FINISH_NONE) open_.erase(found);
  if (finish == rpc::FINISH_ERROR) return refuse(id, delta.error_code, delta.error);
  add_delta(std::move(delta), open->whole);
  if (!open->stream && finish == rpc::FINISH_NONE) return;
  rpc::Frame frame;
  *frame.mutable_output() = std::move(open->whole);
  frame.mutable_output()->set_request_id(id);
  open->whole.Clear();
  connection_.send(frame);
}

}  // namespace accrete::coordinator
