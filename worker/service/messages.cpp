#include "worker/service/messages.h"

namespace accrete::worker {
namespace {

rpc::FinishReason to_message(FinishReason reason) {
  switch (reason) {
    case FinishReason::none: return rpc::FINISH_NONE;
    case FinishReason::stop: return rpc::FINISH_STOP;
    case FinishReason::length: return rpc::FINISH_LENGTH;
    case FinishReason::abort: return rpc::FINISH_ABORT;
    case FinishReason::error: return rpc::FINISH_ERROR;
  }
  return rpc::FINISH_ERROR;
}

}  // namespace

Request to_request(const rpc::Submit& submit) {
  const rpc::SamplingParams& from = submit.sampling();
  Request request;
  request.id = submit.request_id();
  request.prompt.assign(submit.prompt().begin(), submit.prompt().end());
  request.generated.assign(submit.generated().begin(), submit.generated().end());
  SamplingParams& to = request.sampling;
  to.temperature = from.temperature();
  to.top_p = from.top_p();
  to.top_k = from.top_k();
  to.min_p = from.min_p();
  to.presence_penalty = from.presence_penalty();
  to.frequency_penalty = from.frequency_penalty();
  to.repetition_penalty = from.repetition_penalty();
  for (const auto& [token, bias] : from.logit_bias()) to.logit_bias.emplace_back(token, bias);
  to.seed = from.seed();
  to.logprobs = from.has_logprobs() ? static_cast<int32_t>(from.logprobs()) : -1;
  request.prompt_logprobs = from.has_prompt_logprobs() ? static_cast<int32_t>(from.prompt_logprobs()) : -1;
  request.max_tokens = from.max_tokens();
  request.min_tokens = from.min_tokens();
  request.ignore_eos = from.ignore_eos();
  request.stop_token_ids.assign(from.stop_token_ids().begin(), from.stop_token_ids().end());
  request.priority = submit.priority();
  request.decision_key = submit.request_id();
  return request;
}

rpc::Token to_message(const TokenOut& token) {
  rpc::Token message;
  message.set_id(token.id);
  message.set_logprob(token.logprob);
  message.set_rank(static_cast<uint32_t>(token.rank));
  uint32_t rank = 0;
  for (const TokenLogprobOf& top : token.top) {
    rpc::TokenLogprob& entry = *message.add_top();
    entry.set_token(top.token);
    entry.set_logprob(top.logprob);
    entry.set_rank(++rank);
  }
  return message;
}

void fill_chunk(const RequestOutput& output, uint64_t id, rpc::TokenChunk& chunk) {
  chunk.set_request_id(id);
  for (const TokenOut& token : output.tokens) *chunk.add_tokens() = to_message(token);
  for (const TokenOut& token : output.prompt_tokens) *chunk.add_prompt_tokens() = to_message(token);
  chunk.set_finish(to_message(output.finish));
  if (output.finish == FinishReason::none) return;
  rpc::Usage& usage = *chunk.mutable_usage();
  usage.set_prompt_tokens(static_cast<uint32_t>(output.usage.prompt_tokens));
  usage.set_completion_tokens(static_cast<uint32_t>(output.usage.completion_tokens));
  usage.set_kv_slots(output.usage.kv_slots);
  usage.set_compression_ratio(output.usage.compression_ratio);
  usage.set_preemptions(static_cast<uint32_t>(output.usage.preemptions));
  if (output.finish != FinishReason::error) return;
  chunk.set_error(output.error);
  chunk.set_error_code(rpc::ERROR_INTERNAL);
}

}  // namespace accrete::worker
