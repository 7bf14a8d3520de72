// One request over the binary protocol, measured. All requests of a run share one connection.
#pragma once

#include <string>

#include "launch/bench/load_generator.h"

namespace accrete::launch {

struct RpcTarget {
  std::string host = "127.0.0.1";
  int port = 8001;
  std::string api_key;
  std::string model;
  double temperature = 0.0;
  bool ignore_eos = true;
};

SendFn rpc_backend(RpcTarget target);

}  // namespace accrete::launch
