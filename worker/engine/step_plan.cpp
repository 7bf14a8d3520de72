#include "worker/engine/step_plan.h"

#include "worker/engine/archive.h"

namespace accrete::worker {

// Found by field()'s argument-dependent lookup: declared before the templates that use them are instantiated.
template <class Archive>
void field(Archive& archive, SamplingParams& p) {
  fields(archive, p.temperature, p.top_p, p.top_k, p.min_p, p.presence_penalty, p.frequency_penalty, p.repetition_penalty);
  uint64_t count = p.logit_bias.size();  // pairs are not trivially copyable
  field(archive, count);
  if constexpr (Archive::kReading) p.logit_bias.resize(count);
  for (auto& [token, bias] : p.logit_bias) fields(archive, token, bias);
  fields(archive, p.seed, p.logprobs);
}
template <class Archive>
void field(Archive& archive, SamplerSetup& setup) {
  field(archive, setup.params);
  fields(archive, setup.prompt_tokens, setup.min_tokens, setup.ends, setup.tokens);
}
template <class Archive>
void field(Archive& archive, PlanItem& item) {
  fields(archive, item.id, item.row, item.decision_key, item.begin, item.tokens, item.sample, item.score_from, item.score_top, item.next_token, item.pretend);
  bool there = item.setup.has_value();
  field(archive, there);
  if constexpr (Archive::kReading) {
    if (there) item.setup.emplace();
  }
  if (there) field(archive, *item.setup);
}
template <class Archive>
void field(Archive& archive, TokenOut& token) {
  fields(archive, token.id, token.logprob, token.rank, token.top);
}
template <class Archive>
void field(Archive& archive, ItemResult& result) {
  bool there = result.sampled.has_value();
  field(archive, there);
  if constexpr (Archive::kReading) {
    if (there) result.sampled.emplace();
  }
  if (there) field(archive, *result.sampled);
  uint64_t count = result.scored.size();
  field(archive, count);
  if constexpr (Archive::kReading) result.scored.resize(count);
  for (TokenOut& token : result.scored) field(archive, token);
}

namespace {

template <class Archive, class T>
void each(Archive& archive, std::vector<T>& values) {
  uint64_t count = values.size();
  field(archive, count);
  if constexpr (Archive::kReading) values.resize(count);
  for (T& value : values) field(archive, value);
}

template <class Archive>
void whole(Archive& archive, StepPlan& plan) {
  fields(archive, plan.step, plan.stop, plan.want_heads, plan.releases, plan.swap_outs, plan.swap_ins, plan.drops);
  each(archive, plan.items);
}

template <class Archive>
void whole(Archive& archive, StepReport& report) {
  fields(archive, report.step, report.free_pages, report.exhausted, report.device_seconds, report.uses);
  each(archive, report.released);
  field(archive, report.head_slots);
  each(archive, report.results);
}

template <class T>
std::vector<std::byte> write(const T& value) {
  ByteWriter writer;
  whole(writer, const_cast<T&>(value));  // a writer only reads
  return std::move(writer.bytes);
}

template <class T>
T read(std::span<const std::byte> bytes) {
  ByteReader reader(bytes);
  T value;
  whole(reader, value);
  CHECK(reader.left() == 0, reader.left());
  return value;
}

}  // namespace

int64_t PlanItem::score_rows() const {
  if (score_from < 0) return 0;
  const int64_t last = static_cast<int64_t>(tokens.size()) - (next_token >= 0 ? 0 : 1);
  return std::max<int64_t>(0, last - score_from);
}

bool StepPlan::pretends() const {
  bool prompts = false;
  for (const PlanItem& item : items) {
    if (!item.prompt()) continue;
    if (!item.pretend) return false;
    prompts = true;
  }
  return prompts;
}

int64_t StepPlan::tokens() const {
  int64_t count = 0;
  for (const PlanItem& item : items) count += static_cast<int64_t>(item.tokens.size());
  return count;
}

std::vector<std::byte> to_bytes(const StepPlan& plan) { return write(plan); }
std::vector<std::byte> to_bytes(const StepReport& report) { return write(report); }
StepPlan plan_from(std::span<const std::byte> bytes) { return read<StepPlan>(bytes); }
StepReport report_from(std::span<const std::byte> bytes) { return read<StepReport>(bytes); }

}  // namespace accrete::worker
