// Samplers: the sampling rank's memory of each open request, its parameters and the tokens seen so far.
#pragma once

#include <span>
#include <unordered_map>

#include "kernels/thread_pool.h"
#include "kernels/view.h"
#include "worker/engine/step_plan.h"

namespace accrete::worker {

class Samplers {
 public:
  // Takes in an item's setup and tokens.
  void see(const PlanItem& item);
  void drop(RequestId id) { open_.erase(id); }
  size_t open() const { return open_.size(); }

  // One result an item from the step's logits [n, V], whose rows stand in item order: scored ones, then the sampled one.
  std::vector<ItemResult> results(const std::vector<PlanItem>& items, const View<float, 2>& logits, ThreadPool& pool);

 private:
  struct State {
    SamplerSetup setup;
    std::vector<int32_t> tokens;  // by position
    std::vector<int32_t> prompt_set;                             // distinct prompt tokens
    std::vector<std::pair<int32_t, int32_t>> generated_counts;
    size_t counted = 0;  // tokens that the two above cover
  };
  ItemResult result(const PlanItem& item, View<float, 2> logits);
  TokenOut sample(const PlanItem& item, std::span<float> logits);
  static void count(State& state);

  std::unordered_map<RequestId, State> open_;
};

}  // namespace accrete::worker
