// What a running server says about itself: which model, on what, and how far it may be filled.
#pragma once

#include <cstdint>
#include <vector>

#include "launch/bench/http_client.h"
#include "launch/bench/record.h"

namespace accrete::launch {

struct ServerFacts {
  Provenance provenance;
  int64_t vocab = 0;
  int64_t max_model_len = 0;
};

// GET /v1/cluster. `model` picks one of several; empty: the first. Throws std::runtime_error saying what the server answered.
ServerFacts ask_server(const HttpServer& server, const std::string& model);

// POST /tokenize. Throws std::runtime_error.
std::vector<int32_t> tokenize_remotely(const HttpServer& server, const std::string& model, const std::string& text);

}  // namespace accrete::launch
