#include "worker/engine/gpu/step_buffers.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/sampling/sample_device.h"

namespace accrete::worker {
namespace {

constexpr int64_t kUseFields = 4;
constexpr size_t kAlignment = 16;

// Places fields one after another.
class Places {
 public:
  explicit Places(std::byte* memory) : memory_(memory) {}
  template <class T, int N>
  View<T, N> take(std::array<int64_t, N> shape) {
    View<T, N> view(memory_ ? reinterpret_cast<T*>(memory_ + end_) : nullptr, shape);
    end_ += (static_cast<size_t>(view.size()) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
    return view;
  }
  size_t end() const { return end_; }

 private:
  std::byte* memory_;
  size_t end_ = 0;
};

void fill_padding(const StepPlan& plan, const StepCounts& used, const StepCounts& counts, StepInputs& inputs) {
  const auto items = static_cast<int64_t>(plan.items.size());
  for (int64_t i = items; i < counts.sequences; ++i) {
    inputs.row(i) = -1;
    inputs.key(i) = 0;
    inputs.token_begin(i + 1) = static_cast<int32_t>(used.tokens + i - items + 1);
  }
  for (int64_t t = used.tokens; t < counts.tokens; ++t) {
    inputs.ids(t) = inputs.position(t) = 0;
    inputs.sequence(t) = static_cast<int32_t>(items + t - used.tokens);
  }
  for (int64_t i = used.samples; i < counts.samples; ++i) {
    inputs.sample_row(i) = -1;
    inputs.sample_position(i) = 0;
    inputs.logit_tokens(i) = static_cast<int32_t>(used.tokens + i - used.samples);
  }
}

// The token that the item's score row i scores.
int32_t successor_of(const PlanItem& item, int64_t i) {
  const auto at = static_cast<size_t>(item.score_from + i + 1);
  return at < item.tokens.size() ? item.tokens[at] : item.next_token;
}

// An item's fields, its tokens from `first`; sample and score: the next free rows of either.
void fill_item(const PlanItem& item, int64_t first, int64_t& sample, int64_t& score, StepInputs& inputs) {
  const auto tokens = static_cast<int64_t>(item.tokens.size());
  for (int64_t t = 0; t < tokens; ++t) {
    inputs.ids(first + t) = item.tokens[t];
    inputs.position(first + t) = static_cast<int32_t>(item.begin + t);
  }
  if (item.sample) {
    inputs.sample_row(sample) = item.row;
    inputs.sample_position(sample) = static_cast<int32_t>(item.begin + tokens);
    inputs.logit_tokens(sample++) = static_cast<int32_t>(first + tokens - 1);
  }
  const int64_t samples = inputs.sample_row.shape[0];
  for (int64_t i = 0; i < item.score_rows(); ++i, ++score) {
    inputs.logit_tokens(samples + score) = static_cast<int32_t>(first + item.score_from + i);
    inputs.score_token(score) = successor_of(item, i);
    inputs.score_top(score) = item.score_top;
  }
}

TokenOut read_token(const StepOutputs& outputs, int64_t i) {
  TokenOut out{outputs.token(i), outputs.logprob(i), outputs.rank(i), {}};
  for (int64_t k = 0; k < kMostTopLogprobs && outputs.top_tokens(i, k) >= 0; ++k) out.top.push_back({outputs.top_tokens(i, k), outputs.top_logprobs(i, k)});
  return out;
}

// What follows the leading decodes counts as prompts: the prompt kernel takes it.
AttentionLoad attention_load(const StepPlan& plan, int64_t decodes) {
  AttentionLoad load;
  for (const PlanItem& item : plan.items) {
    if (--decodes >= 0) load.decode_tokens += item.begin + 1;
    else load.prompts.push_back({static_cast<int64_t>(item.tokens.size()), item.begin});
  }
  return load;
}

}  // namespace

StepCounts counts_of(const StepPlan& plan) {
  StepCounts counts{plan.tokens(), static_cast<int64_t>(plan.items.size()), 0, 0};
  for (const PlanItem& item : plan.items) {
    counts.samples += item.sample ? 1 : 0;
    counts.scores += item.score_rows();
  }
  return counts;
}

StepInputs::StepInputs(const StepCounts& counts, std::byte* memory) {
  Places places(memory);
  key = places.take<uint64_t, 1>({counts.sequences});
  for (View<int32_t, 1>* field : {&ids, &position, &sequence}) *field = places.take<int32_t, 1>({counts.tokens});
  row = places.take<int32_t, 1>({counts.sequences});
  token_begin = places.take<int32_t, 1>({counts.sequences + 1});
  logit_tokens = places.take<int32_t, 1>({counts.samples + counts.scores});
  for (View<int32_t, 1>* field : {&sample_row, &sample_position}) *field = places.take<int32_t, 1>({counts.samples});
  for (View<int32_t, 1>* field : {&score_token, &score_top}) *field = places.take<int32_t, 1>({counts.scores});
  end = places.end();
}

void fill_inputs(const StepPlan& plan, const StepCounts& counts, StepInputs& inputs) {
  int64_t first = 0, sample = 0, score = 0;
  inputs.token_begin(0) = 0;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const PlanItem& item = plan.items[i];
    const auto s = static_cast<int64_t>(i), tokens = static_cast<int64_t>(item.tokens.size());
    inputs.row(s) = item.row;
    inputs.key(s) = item.decision_key;
    std::fill_n(&inputs.sequence(first), tokens, static_cast<int32_t>(s));
    fill_item(item, first, sample, score, inputs);
    first += tokens;
    inputs.token_begin(s + 1) = static_cast<int32_t>(first);
  }
  fill_padding(plan, {first, static_cast<int64_t>(plan.items.size()), sample, score}, counts, inputs);
}

int64_t leading_decodes(const StepPlan& plan) {
  int64_t decodes = 0;
  for (const PlanItem& item : plan.items) {
    if (item.tokens.size() != 1 || item.begin == 0) break;
    ++decodes;
  }
  return decodes;
}

StageInput stage_input(const StepPlan& plan, const StepInputs& inputs) {
  StageInput input;
  input.batch.row = inputs.row;
  input.batch.token_begin = inputs.token_begin;
  input.batch.position = inputs.position;
  input.batch.sequence_key = inputs.key;
  input.batch.sequence = inputs.sequence;
  input.batch.decodes = leading_decodes(plan);
  input.load = attention_load(plan, input.batch.decodes);
  const bool all = input.batch.decodes == static_cast<int64_t>(plan.items.size());
  if (all) input.batch.decodes = inputs.row.shape[0];  // padding decodes, too
  for (const PlanItem& item : plan.items) input.batch.most_tokens = std::max(input.batch.most_tokens, static_cast<int64_t>(item.tokens.size()));
  input.ids = inputs.ids;
  input.logit_tokens = inputs.logit_tokens;
  return input;
}

StepOutputs::StepOutputs(const StepCounts& counts, std::byte* memory) {
  Places places(memory);
  const int64_t rows = counts.samples + counts.scores;
  uses = places.take<int64_t, 2>({counts.sequences, kUseFields});
  pool = places.take<int64_t, 1>({2});
  token = places.take<int32_t, 1>({rows});
  logprob = places.take<float, 1>({rows});
  rank = places.take<int32_t, 1>({rows});
  top_tokens = places.take<int32_t, 2>({rows, kMostTopLogprobs});
  top_logprobs = places.take<float, 2>({rows, kMostTopLogprobs});
  end = places.end();
}

std::vector<ItemResult> read_results(const StepPlan& plan, const StepOutputs& outputs) {
  std::vector<ItemResult> results(plan.items.size());
  int64_t sample = 0, score = counts_of(plan).samples;
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const PlanItem& item = plan.items[i];
    if (item.sample) results[i].sampled = read_token(outputs, sample++);
    for (int64_t k = 0; k < item.score_rows(); ++k) {
      results[i].scored.push_back(read_token(outputs, score++));
      results[i].scored.back().id = successor_of(item, k);  // also where the logits are no numbers
    }
  }
  return results;
}

}  // namespace accrete::worker
