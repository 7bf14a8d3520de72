#include "launch/bench/engine_requests.h"

namespace accrete::launch {

std::vector<worker::Request> engine_requests(const std::vector<BenchPrompt>& prompts) {
  std::vector<worker::Request> requests;
  for (const BenchPrompt& prompt : prompts) {
    worker::Request request;
    request.prompt = prompt.tokens;
    request.sampling.temperature = 0.0f;
    request.max_tokens = prompt.output_len;
    request.ignore_eos = true;
    request.pretend_prompt = prompt.pretend;
    requests.push_back(std::move(request));
  }
  return requests;
}

}  // namespace accrete::launch
