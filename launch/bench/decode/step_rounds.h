// When all sequences of a batch have moved on by a token, from outputs as they come. One stage has them all in one step; with P stages a batch
// goes through in P parts, each a step of its own.
#pragma once

#include <chrono>
#include <cstdint>
#include <vector>

namespace accrete::launch {

class StepRounds {
 public:
  using Time = std::chrono::steady_clock::time_point;

  explicit StepRounds(size_t batch) : waiting_(batch), started_(batch) {}

  // A token of sequence `index`, of the step that ended at `when`; outputs of one step have the same time. True when it ends a round: since the
  // step that brought the last sequence's first token, or since the last round, there was a token for every sequence.
  bool take(size_t index, Time when) {
    if (waiting_ > 0 || when == begin_) {
      if (started_.at(index)) return false;
      started_[index] = true;
      --waiting_;
      begin_ = when;
      return false;
    }
    tokens_ = (tokens_ + 1) % started_.size();
    return tokens_ == 0;
  }

 private:
  size_t waiting_;             // sequences without a token
  std::vector<bool> started_;  // [batch]
  size_t tokens_ = 0;          // of this round
  Time begin_{};               // of the step that brought the last first token
};

}  // namespace accrete::launch
