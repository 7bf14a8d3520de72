#include "worker/engine/sampler.h"

#include <algorithm>

#include "kernels/check.h"

namespace accrete::worker {
namespace {

TokenOut to_out(Sampled&& sampled) { return {sampled.token, sampled.logprob, sampled.rank, std::move(sampled.top)}; }

}  // namespace

void Samplers::see(const PlanItem& item) {
  State& state = open_[item.id];
  if (item.setup) state.setup = *item.setup;
  const size_t end = static_cast<size_t>(item.begin) + item.tokens.size();
  if (state.tokens.size() < end) state.tokens.resize(end);
  std::copy(item.tokens.begin(), item.tokens.end(), state.tokens.begin() + item.begin);
}

// Brings the counts that penalties need up to the last token seen.
void Samplers::count(State& state) {
  const auto prompt = std::min<size_t>(state.setup.prompt_tokens, state.tokens.size());
  if (state.counted == 0) {
    state.prompt_set.assign(state.tokens.begin(), state.tokens.begin() + static_cast<int64_t>(prompt));
    std::sort(state.prompt_set.begin(), state.prompt_set.end());
    state.prompt_set.erase(std::unique(state.prompt_set.begin(), state.prompt_set.end()), state.prompt_set.end());
    state.counted = prompt;
  }
  for (; state.counted < state.tokens.size(); ++state.counted) {
    const int32_t token = state.tokens[state.counted];
    auto& counts = state.generated_counts;
    const auto found = std::find_if(counts.begin(), counts.end(), [&](const auto& entry) { return entry.first == token; });
    if (found == counts.end()) counts.emplace_back(token, 1);
    else ++found->second;
  }
}

TokenOut Samplers::sample(const PlanItem& item, std::span<float> logits) {
  State& state = open_.at(item.id);
  const SamplingParams& params = state.setup.params;
  SampleRequest request;
  request.params = &params;
  request.position = static_cast<uint64_t>(item.begin) + item.tokens.size();
  if (params.penalised()) {
    count(state);
    request.counts = {state.generated_counts, state.prompt_set};
  }
  const auto generated = static_cast<int64_t>(request.position) - state.setup.prompt_tokens;
  if (generated < state.setup.min_tokens) request.forbidden = state.setup.ends;
  return to_out(sample_cpu(request, logits));
}

ItemResult Samplers::result(const PlanItem& item, View<float, 2> logits) {
  const int64_t vocab = logits.shape[1];
  ItemResult out;
  for (int64_t i = 0; i < item.score_rows(); ++i) {
    const size_t successor = static_cast<size_t>(item.score_from + i) + 1;
    const int32_t token = successor < item.tokens.size() ? item.tokens[successor] : item.next_token;
    out.scored.push_back(to_out(score_cpu({&logits(i, 0), static_cast<size_t>(vocab)}, token, item.score_top)));
    out.scored.back().id = token;
  }
  if (item.sample) out.sampled = sample(item, {&logits(item.score_rows(), 0), static_cast<size_t>(vocab)});
  return out;
}

std::vector<ItemResult> Samplers::results(const std::vector<PlanItem>& items, const View<float, 2>& logits, ThreadPool& pool) {
  std::vector<ItemResult> out(items.size());
  std::vector<int64_t> first(items.size() + 1);
  for (size_t i = 0; i < items.size(); ++i) first[i + 1] = first[i] + items[i].logit_rows();
  CHECK(first.back() == logits.shape[0], first.back(), logits.shape[0]);
  pool.run(static_cast<int64_t>(items.size()), [&](int64_t i) { out[i] = result(items[i], logits.rows(first[i], first[i + 1])); });
  return out;
}

}  // namespace accrete::worker
