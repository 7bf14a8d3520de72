// The device memory behind a StepBatch, for steps of one kind: every sequence at one place of its text, and perhaps one prompt. In builds with CUDA.
#pragma once

#include "kernels/paging/step_batch.h"
#include "launch/bench/kernels/device_array.h"

namespace accrete::launch {

struct StepKind {
  int64_t sequences = 0;  // rows 0 .. sequences - 1 of the cache
  int64_t tokens = 1;     // of each sequence
  int64_t position = 0;   // of its first token
  bool decode = false;    // they take the decode kernels
  int64_t prompt = 0;     // tokens of one more sequence behind them, the next row, which is a prompt
  int64_t T() const { return sequences * tokens + prompt; }
  int64_t B() const { return sequences + (prompt > 0 ? 1 : 0); }
};

class Step {
 public:
  Step(const StepKind& kind, Stream& stream);
  StepBatch batch() const;
  int64_t tokens() const { return kind_.T(); }  // T
  View<const float, 2> cos() const { return cos_.view<2>({tokens(), cos_.size() / tokens()}); }  // [T, D/2]
  View<const float, 2> sin() const { return sin_.view<2>({tokens(), sin_.size() / tokens()}); }

 private:
  StepKind kind_;
  DeviceArray<int32_t> row_, token_begin_, position_, sequence_;
  DeviceArray<uint64_t> key_;
  DeviceArray<float> cos_, sin_;  // [T, D/2]
};

}  // namespace accrete::launch
