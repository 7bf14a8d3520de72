// AnswerStream: all choices of one API request while they run. Owned by the coroutine that answers.
#pragma once

#include <boost/asio/io_context.hpp>
#include <boost/asio/steady_timer.hpp>
#include <deque>
#include <memory>
#include <utility>
#include <vector>

#include "coordinator/api/prepare.h"
#include "coordinator/api/response_json.h"

namespace accrete::coordinator {

class AnswerStream {
 public:
  struct Parts {
    AnswerHead head;
    ApiRequest request;
    std::shared_ptr<const ModelEntry> model;
  };
  AnswerStream(boost::asio::io_context& io, Parts parts, std::vector<PreparedChoice> choices, Cluster& cluster, ServingMetrics& metrics);

  // Sends all choices off; the first refusal ends it (those already sent are cancelled when this object goes).
  std::optional<Refusal> start();
  // Writes server-sent events until all choices have ended or the client cannot be written to.
  boost::asio::awaitable<void> stream_to(net::HttpExchange& exchange);
  // Waits for all choices, then the answer in one piece.
  boost::asio::awaitable<net::HttpResponse> collect();

 private:
  using News = std::pair<size_t, Delta>;

  boost::asio::awaitable<std::deque<News>> next();
  void apply(ChoiceState& choice, Delta& delta);
  std::string echo_of(size_t index) const;
  bool all_ended() const { return ended_ == choices_.size(); }

  Parts parts_;
  std::vector<PreparedChoice> prepared_;
  Cluster& cluster_;
  ServingMetrics& metrics_;
  boost::asio::steady_timer arrived_;
  std::deque<News> news_;
  std::vector<ChoiceState> choices_;
  size_t ended_ = 0;
  std::vector<std::unique_ptr<Generation>> generations_;  // last: they call back into the above
};

}  // namespace accrete::coordinator
