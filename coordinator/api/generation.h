// Generation: one choice of a request on its way: tokens from the cluster become text, stop strings are found, the end is named. Both HTTP and
// RPC are made of it. Owned by the I/O thread; letting go of one cancels it.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "coordinator/api/serving_metrics.h"
#include "coordinator/cluster/cluster.h"
#include "coordinator/text/detokenizer.h"
#include "coordinator/text/stop_checker.h"

namespace accrete::coordinator {

struct GenerationRequest {
  std::shared_ptr<const ModelEntry> model;
  std::vector<int32_t> prompt;
  rpc::SamplingParams sampling;
  std::vector<std::string> stop;
  int32_t priority = 0;
  bool skip_text = false;
};

// News of a generation.
struct Delta {
  std::string text;                       // whole UTF-8, certain to stand before any stop string
  std::vector<rpc::Token> tokens;
  std::vector<rpc::Token> prompt_tokens;  // prompt_logprobs
  rpc::FinishReason finish = rpc::FINISH_NONE;
  rpc::Usage usage;                       // with finish
  std::string error;                      // FINISH_ERROR
  rpc::ErrorCode error_code = rpc::ERROR_UNSPECIFIED;
};

class Generation {
 public:
  using Sink = std::function<void(Delta&&)>;

  Generation(Cluster& cluster, ServingMetrics& metrics, GenerationRequest request, Sink sink);
  ~Generation();
  Generation(const Generation&) = delete;
  Generation& operator=(const Generation&) = delete;

  // Sends it off; why not, if it was refused.
  std::optional<Refusal> start();
  void cancel();

 private:
  void take(const rpc::TokenChunk& chunk);
  void take_text(const rpc::TokenChunk& chunk, Delta& delta);
  void finish(const rpc::TokenChunk& chunk, Delta& delta);
  void measure(const rpc::TokenChunk& chunk);

  Cluster& cluster_;
  ServingMetrics& metrics_;
  GenerationRequest request_;
  Sink sink_;
  std::optional<IncrementalDetokenizer> detokenizer_;
  StopChecker stops_;
  uint64_t id_ = 0;
  bool ended_ = false;
  bool stopped_ = false;      // by a stop string
  uint32_t tokens_ = 0;       // counted for usage
  Clock::time_point begun_, first_, last_;
  bool any_token_ = false;
};

}  // namespace accrete::coordinator
