// SHA-256 over a sequence of fields.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "worker/model/model_config.h"
#include "worker/model/stored_tensor.h"

namespace accrete::worker {

class Sha256 {
 public:
  Sha256();
  ~Sha256();
  // Each field goes in with its length, so that no two sequences of fields look alike.
  void add(std::string_view field);
  void add(int64_t field);
  void add(double field);
  std::string hex();  // ends the hash

 private:
  struct State;
  std::unique_ptr<State> state_;
};

void add_config(Sha256& hash, const ModelConfig& config);

// Names, encodings, shapes, and 64 bytes from the middle of each tensor: models of one shape with other weights differ.
void add_tensors(Sha256& hash, const StoredTensors& tensors);

}  // namespace accrete::worker
