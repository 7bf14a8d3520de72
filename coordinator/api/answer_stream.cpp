#include "coordinator/api/answer_stream.h"

#include <boost/asio/redirect_error.hpp>
#include <boost/asio/use_awaitable.hpp>

namespace accrete::coordinator {

namespace asio = boost::asio;

AnswerStream::AnswerStream(asio::io_context& io, Parts parts, std::vector<PreparedChoice> choices, Cluster& cluster, ServingMetrics& metrics)
    : parts_(std::move(parts)), prepared_(std::move(choices)), cluster_(cluster), metrics_(metrics), arrived_(io, asio::steady_timer::time_point::max()) {
  for (size_t i = 0; i < prepared_.size(); ++i) {
    choices_.emplace_back();
    choices_.back().index = static_cast<int64_t>(i);
    choices_.back().prompt_text = prepared_[i].prompt_text;
    if (!parts_.request.echo || !parts_.request.logprobs) continue;
    choices_.back().prompt.emplace_back();
    choices_.back().prompt.back().set_id(prepared_[i].request.prompt[0]);
    choices_.back().unscored = 1;
  }
}

std::optional<Refusal> AnswerStream::start() {
  for (size_t i = 0; i < prepared_.size(); ++i) {
    generations_.push_back(std::make_unique<Generation>(cluster_, metrics_, prepared_[i].request, [this, i](Delta&& delta) {
      news_.emplace_back(i, std::move(delta));
      arrived_.cancel();
    }));
    if (auto refusal = generations_.back()->start()) return refusal;
  }
  return std::nullopt;
}

asio::awaitable<std::deque<AnswerStream::News>> AnswerStream::next() {
  while (news_.empty()) {
    boost::system::error_code ignored;
    arrived_.expires_at(asio::steady_timer::time_point::max());
    co_await arrived_.async_wait(asio::redirect_error(asio::use_awaitable, ignored));
    // A cancelled coroutine must not wait again.
    if ((co_await asio::this_coro::cancellation_state).cancelled() != asio::cancellation_type::none) throw boost::system::system_error(asio::error::operation_aborted);
  }
  co_return std::exchange(news_, {});
}

void AnswerStream::apply(ChoiceState& choice, Delta& delta) {
  choice.text += delta.text;
  std::move(delta.tokens.begin(), delta.tokens.end(), std::back_inserter(choice.tokens));
  std::move(delta.prompt_tokens.begin(), delta.prompt_tokens.end(), std::back_inserter(choice.prompt));
  if (delta.finish == rpc::FINISH_NONE) return;
  choice.finish = delta.finish;
  choice.usage = delta.usage;
  choice.error = delta.error;
  choice.error_code = delta.error_code;
  ++ended_;
}

asio::awaitable<void> AnswerStream::stream_to(net::HttpExchange& exchange) {
  const Tokenizer* tokenizer = parts_.model->tokenizer.get();
  if (!co_await exchange.begin_stream("text/event-stream; charset=utf-8")) co_return;
  std::string out;
  for (ChoiceState& choice : choices_) {
    if (parts_.request.chat) out += stream_role(parts_.head, choice.index);
    if (choice.prompt_text.empty() && choice.prompt.empty()) continue;
    Delta echo;
    echo.text = choice.prompt_text;
    echo.prompt_tokens = choice.prompt;  // the first; the others come with their scores
    out += stream_chunk(parts_.head, parts_.request, tokenizer, choice, echo);
  }
  if (!out.empty() && !co_await exchange.write(out)) co_return;
  while (!all_ended()) {
    std::deque<News> news = co_await next();
    out.clear();
    for (auto& [index, delta] : news) {
      ChoiceState& choice = choices_[index];
      if (delta.finish == rpc::FINISH_ERROR) {
        const unsigned status = status_of(delta.error_code);
        co_await exchange.write(out + "data: " + error_json(status, delta.error, "") + "\n\n");
        co_await exchange.end_stream();
        co_return;
      }
      out += stream_chunk(parts_.head, parts_.request, tokenizer, choice, delta);
      apply(choice, delta);
    }
    if (!co_await exchange.write(out)) co_return;
  }
  out = parts_.request.include_usage ? stream_usage(parts_.head, parts_.request, choices_) : "";
  if (co_await exchange.write(out + "data: [DONE]\n\n")) co_await exchange.end_stream();
}

asio::awaitable<net::HttpResponse> AnswerStream::collect() {
  while (!all_ended()) {
    std::deque<News> news = co_await next();
    for (auto& [index, delta] : news) apply(choices_[index], delta);
  }
  for (const ChoiceState& choice : choices_) {
    if (choice.finish == rpc::FINISH_ERROR) co_return error_response(status_of(choice.error_code), choice.error);
  }
  net::HttpResponse response;
  response.body = whole_answer(parts_.head, parts_.request, parts_.model->tokenizer.get(), choices_);
  co_return response;
}

}  // namespace accrete::coordinator
