#include "worker/engine/gpu/gpu_executor.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/sampling/row_tokens.h"
#include "worker/engine/settings.h"

namespace accrete::worker {

GpuExecutor::~GpuExecutor() {
  graphs_.clear();  // before what they name
}

void GpuExecutor::begin(StepPlan plan) {
  CHECK(!idle_.empty(), flying_.size());
  std::unique_ptr<Flight> flight = std::move(idle_.back());
  idle_.pop_back();
  flight->plan = std::move(plan);
  flight->counts = {};
  flight->begun.record(device_.stream());
  move_rows(*flight);
  if (!flight->plan.items.empty()) run_items(*flight);
  count_heads(*flight);
  StepOutputs outputs(flight->counts, output_.as<std::byte>());
  if (flight->plan.items.empty()) cache_->use({nullptr, {0}}, outputs.uses, outputs.pool);
  copy_to_host(flight->output.data(), output_.data(), outputs.end, device_.stream());
  flight->done.record(device_.stream());
  flying_.push_back(std::move(flight));
}

void GpuExecutor::check() {
  tensor_->check();
  if (replica_) replica_->check();
  if (one_shot_) one_shot_->check();
}

StepReport GpuExecutor::finish() {
  CHECK(!flying_.empty());
  std::unique_ptr<Flight> flight = std::move(flying_.front());
  flying_.pop_front();
  flight->done.wait();
  check();
  const StepPlan& plan = flight->plan;
  const StepOutputs outputs(flight->counts, flight->output.as<std::byte>());
  StepReport report;
  report.step = plan.step;
  report.free_pages = outputs.pool(0);
  report.exhausted = outputs.pool(1) != 0;
  report.device_seconds = 1e-3 * static_cast<double>(flight->done.elapsed_ms_since(flight->begun));
  for (size_t i = 0; i < plan.items.size(); ++i) {
    const int64_t* use = &outputs.uses(static_cast<int64_t>(i), 0);
    report.uses.push_back({use[0], use[1], static_cast<int32_t>(use[2]), static_cast<int32_t>(use[3])});
  }
  const int64_t heads = cache_->shape().heads();
  const View<int32_t, 2> released = counted(*flight, 0, plan.releases.size());
  for (int64_t i = 0; i < released.shape[0]; ++i) report.released.emplace_back(&released(i, 0), &released(i, 0) + heads);
  if (plan.want_heads) {
    const View<int32_t, 2> rows = counted(*flight, plan.releases.size(), flight->counted_rows.size());
    report.head_slots.assign(heads, 0.0);
    for (int64_t i = 0; i < rows.shape[0]; ++i) {
      for (int64_t h = 0; h < heads; ++h) report.head_slots[h] += static_cast<double>(rows(i, h)) / static_cast<double>(rows.shape[0]);
    }
  }
  if (samples_here()) report.results = read_results(plan, StepOutputs(flight->counts, flight->output.as<std::byte>()));
  idle_.push_back(std::move(flight));
  return report;
}

View<int32_t, 2> GpuExecutor::counted(const Flight& flight, size_t first, size_t rows) const {
  const int64_t heads = cache_->shape().heads();
  return {flight.counted.as<int32_t>() + static_cast<int64_t>(first) * heads, {static_cast<int64_t>(rows), heads}};
}

void GpuExecutor::move_rows(Flight& flight) {
  const StepPlan& plan = flight.plan;
  cache_->count_slots(plan.releases, counted(flight, 0, plan.releases.size()));
  if (!plan.releases.empty()) cache_->release(plan.releases);
  for (int32_t row : plan.releases) occupied_[row] = false;
  swap_rows(plan);
  for (RequestId id : plan.drops) std::erase_if(swapped_, [&](const auto& entry) { return entry.first == id; });
}

void GpuExecutor::swap_rows(const StepPlan& plan) {
  for (const RowSwap& swap : plan.swap_outs) {
    swapped_.emplace_back(swap.id, cache_->export_row(swap.row));
    cache_->release(swap.row);
    occupied_[swap.row] = false;
  }
  for (const RowSwap& swap : plan.swap_ins) {
    const auto found = std::find_if(swapped_.begin(), swapped_.end(), [&](const auto& entry) { return entry.first == swap.id; });
    CHECK(found != swapped_.end(), swap.id);
    CHECK(cache_->import_row(swap.row, found->second), swap.id);  // the ledger counted its pages
    swapped_.erase(found);
    occupied_[swap.row] = true;
  }
}

void GpuExecutor::start_samplers(const StepPlan& plan) {
  for (const PlanItem& item : plan.items) {
    if (!item.setup) continue;
    const SamplerSetup& setup = *item.setup;
    const auto prompt = std::min<size_t>(setup.prompt_tokens, setup.tokens.size());
    SamplerStart start;
    start.params = &setup.params;
    if (setup.min_tokens > 0) start.forbidden = setup.ends;
    start.forbidden_until = setup.prompt_tokens + setup.min_tokens;
    start.prompt = std::span(setup.tokens).first(prompt);
    start.generated = std::span(setup.tokens).subspan(prompt);
    samplers_->start(item.row, start, device_.stream());
  }
}

// Whether a graph serves the step: decodes that each sample a token.
bool GpuExecutor::replays(const StepPlan& plan) const {
  const auto items = static_cast<int64_t>(plan.items.size());
  if (graphs_.empty() || leading_decodes(plan) != items) return false;
  return std::all_of(plan.items.begin(), plan.items.end(), [](const PlanItem& item) { return item.sample && item.score_rows() == 0; });
}

void GpuExecutor::run_items(Flight& flight) {
  const StepPlan& plan = flight.plan;
  const bool replay = replays(plan);
  const int64_t batch = token_bucket(static_cast<int64_t>(plan.items.size()));
  flight.counts = replay ? StepCounts{batch, batch, batch, 0} : counts_of(plan);
  const StepCounts& counts = flight.counts;
  for (const PlanItem& item : plan.items) occupied_[item.row] = true;
  if (samples_here()) start_samplers(plan);
  StepInputs on_host(counts, flight.input.as<std::byte>()), inputs(counts, input_.as<std::byte>());
  fill_inputs(plan, counts, on_host);
  copy_to_device(input_.data(), flight.input.data(), on_host.end, device_.stream());
  if (!first_stage()) hand_on(counts.tokens, true);
  if (replay) {
    graphs_.at(batch).launch(device_.stream());
    if (tensor_->size() > 1) tensor_->watch("decode step", device_.stream());
  } else {
    enqueue(stage_input(plan, inputs), inputs, counts, plan.pretends());
  }
  if (!last_stage()) hand_on(counts.tokens, false);
}

void GpuExecutor::hand_on(int64_t tokens, bool receive) {
  const AnyView<2> hidden = stage_->hidden(tokens);
  const std::span<std::byte> bytes(static_cast<std::byte*>(hidden.data), static_cast<size_t>(tokens * hidden.shape[1]) * size_of(hidden.dtype));
  const int rank = groups_.replica.rank(), next = groups_.topology.tensor;
  if (receive) replica_->recv(bytes, rank - next, device_.stream());
  else replica_->send(bytes, rank + next, device_.stream());
}

// All of a step that a graph can hold.
void GpuExecutor::enqueue(const StageInput& input, StepInputs& inputs, const StepCounts& counts, bool pretend) {
  StepOutputs outputs(counts, output_.as<std::byte>());
  Stream& stream = device_.stream();
  const bool ahead = looks_ahead(options_);
  if (ahead) read_row_tokens_cuda({inputs.ids, inputs.sequence, inputs.row, row_tokens_.as<int32_t>()}, stream);
  if (pretend) stage_->pretend(input, cache_->ref());
  else stage_->forward(input, cache_->ref());
  if (last_stage()) sample(inputs, counts, outputs);
  if (ahead && counts.samples > 0) {
    View<int32_t, 1> tokens = outputs.token.rows(0, counts.samples);
    if (tensor_->size() > 1) tensor_->broadcast(std::as_writable_bytes(std::span(tokens.data, static_cast<size_t>(counts.samples))), 0, stream);
    write_row_tokens_cuda({tokens, inputs.sample_row, row_tokens_.as<int32_t>()}, stream);
  }
  cache_->use(inputs.row, outputs.uses, outputs.pool);
}

void GpuExecutor::sample(const StepInputs& inputs, const StepCounts& counts, StepOutputs& outputs) {
  const View<float, 2> logits = stage_->logits();
  if (!samples_here() || logits.shape[0] == 0) return;
  if (counts.samples > 0) {
    SampleDevice op;
    op.logits = logits.rows(0, counts.samples);
    op.tables = samplers_->tables();
    op.state_row = inputs.sample_row.data;
    op.position = inputs.sample_position.data;
    op.token = outputs.token.data;
    op.logprob = outputs.logprob.data;
    op.rank = outputs.rank.data;
    op.top_tokens = outputs.top_tokens.data;
    op.top_logprobs = outputs.top_logprobs.data;
    sample_cuda(op, device_.stream());
  }
  if (counts.scores == 0) return;
  ScoreDevice op;
  op.logits = logits.rows(counts.samples, counts.samples + counts.scores);
  op.token = inputs.score_token.data;
  op.top = inputs.score_top.data;
  op.scored = outputs.token.data + counts.samples;
  op.logprob = outputs.logprob.data + counts.samples;
  op.rank = outputs.rank.data + counts.samples;
  op.top_tokens = outputs.top_tokens.data + counts.samples * kMostTopLogprobs;
  op.top_logprobs = outputs.top_logprobs.data + counts.samples * kMostTopLogprobs;
  score_cuda(op, device_.stream());
}

void GpuExecutor::count_heads(Flight& flight) {
  flight.counted_rows.clear();
  if (!flight.plan.want_heads) return;
  for (size_t row = 0; row < occupied_.size(); ++row) {
    if (occupied_[row]) flight.counted_rows.push_back(static_cast<int32_t>(row));
  }
  cache_->count_slots(flight.counted_rows, counted(flight, flight.plan.releases.size(), flight.counted_rows.size()));
}

}  // namespace accrete::worker
