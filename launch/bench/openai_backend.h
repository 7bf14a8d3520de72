// One request to a server's POST /v1/completions as a stream, measured.
#pragma once

#include "launch/bench/http_client.h"
#include "launch/bench/load_generator.h"

namespace accrete::launch {

struct OpenAiTarget {
  HttpServer server;
  std::string endpoint = "/v1/completions";
  std::string model;
  double temperature = 0.0;
  bool ignore_eos = true;
};

SendFn openai_backend(OpenAiTarget target);

}  // namespace accrete::launch
