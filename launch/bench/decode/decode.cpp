// accrete bench decode: the engine's decode steps at a full batch, without computing the prompts.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "launch/bench/dataset.h"
#include "launch/bench/decode/copy_rate.h"
#include "launch/bench/decode/decode_report.h"
#include "launch/bench/decode/largest_batch.h"
#include "launch/bench/decode/step_parts.h"
#include "launch/bench/decode/step_rounds.h"
#include "launch/bench/engine_requests.h"
#include "launch/bench/report.h"
#include "launch/cli/engine_flags.h"
#include "launch/commands/commands.h"
#include "launch/engine/offline_engine.h"
#include "launch/engine/provenance.h"
#include "worker/engine/settings.h"
#include "worker/model/tensor_source.h"

namespace accrete::launch {
namespace {

constexpr int64_t kWarmSteps = 10;
constexpr int64_t kTokensOfAStep = 2048;  // prompts that are not computed need few

struct DecodeFlags {
  EngineFlags engine;
  int64_t input_len = 1024;
  int64_t output_len = 1024;
  int64_t batch_size = 0;
  int64_t steps = 64;
  std::vector<double> ratios{1.0};
  bool max_batch = false;
  bool breakdown = false;
  bool spread = false;
  std::string output_json;
  std::string report;
};

struct Measured {
  std::vector<double> steps;  // seconds between rounds (step_rounds.h)
  rpc::ReplicaReport before, after;
};

std::vector<RankMemory> memory_of(const rpc::ReplicaShape& shape) {
  std::vector<RankMemory> ranks;
  for (const rpc::RankShape& rank : shape.ranks()) {
    ranks.push_back({static_cast<int64_t>(rank.pages_total()), static_cast<int64_t>(rank.page_bytes()), static_cast<int>(rank.layer_begin()),
                     static_cast<int>(rank.layer_end()), static_cast<int>(rank.kv_head_begin()), static_cast<int>(rank.kv_head_end())});
  }
  return ranks;
}

// A first start with one row shows what there is for caches.
int64_t find_batch(const worker::EngineOptions& options, const worker::ModelConfig& model, int64_t peak) {
  worker::EngineOptions probe = options;
  probe.max_num_seqs = 1;
  probe.enforce_eager = true;
  probe.tune_products = false;
  const OfflineEngine engine(probe);
  const int64_t batch = largest_batch(options, model, memory_of(engine.status().shape), peak);
  if (batch == 0) throw std::runtime_error(fmt::format("not one sequence of {} tokens fits; use --quantization fp8 or more GPUs", peak));
  return batch;
}

// Prompts such that half of the output is there in the middle of the measured steps. Lengths differ by up to a page, as they do in life, so that
// heads do not all need a page at the same step.
std::vector<BenchPrompt> prompts_of(const DecodeFlags& flags, const worker::EngineOptions& options, int64_t batch, int64_t vocab) {
  const int64_t middle = flags.input_len + flags.output_len / 2;
  const auto phase = [&](size_t i) {  // how far the sequence is beyond the middle of its output
    if (!flags.spread) return int64_t{0};
    return flags.output_len * (2 * static_cast<int64_t>(i) + 1 - batch) / (2 * batch);
  };
  const int64_t ramp = batch * middle / options.max_num_batched_tokens + 1;  // steps until the last prompt is in; the first ones decode meanwhile
  const int64_t length = std::max<int64_t>(1, middle - ramp / 2 - kWarmSteps - flags.steps / 2);
  const int64_t longest = length + phase(static_cast<size_t>(batch - 1));
  std::vector<BenchPrompt> prompts = random_prompts({.count = batch, .input_len = longest, .output_len = 0, .vocab = vocab, .seed = options.seed});
  for (size_t i = 0; i < prompts.size(); ++i) {
    const int64_t wanted = length + phase(i) - static_cast<int64_t>(i) % options.block_size;
    prompts[i].tokens.resize(static_cast<size_t>(std::max<int64_t>(1, wanted)));
    prompts[i].pretend = true;
    prompts[i].output_len = options.max_model_len - static_cast<int64_t>(prompts[i].tokens.size());
  }
  return prompts;
}

Measured measure(OfflineEngine& engine, const DecodeFlags& flags, const std::vector<BenchPrompt>& prompts) {
  Measured measured;
  StepRounds rounds(prompts.size());
  StepRounds::Time last{};
  int64_t full = 0;
  engine.run(engine_requests(prompts), [&](const TimedOutput& timed) {
    if (timed.output.finish == worker::FinishReason::error) throw std::runtime_error(timed.output.error);
    if (timed.output.tokens.empty() || !rounds.take(timed.output.id, timed.when)) return;
    if (++full == kWarmSteps) measured.before = engine.status().report;
    if (full > kWarmSteps && full <= kWarmSteps + flags.steps) measured.steps.push_back(std::chrono::duration<double>(timed.when - last).count());
    last = timed.when;
    if (full != kWarmSteps + flags.steps) return;
    measured.after = engine.status().report;
    for (size_t i = 0; i < prompts.size(); ++i) engine.cancel(i);
  });
  if (measured.steps.empty()) throw std::runtime_error(fmt::format("{} sequences never ran together: a smaller --batch-size", prompts.size()));
  if (measured.after.running() == 0) throw std::runtime_error("the sequences ended before they could be looked at: a longer --output-len");
  return measured;
}

// Steps that take the batch once round.
int parts_of(const worker::EngineOptions& options, const rpc::ReplicaShape& shape) {
  if (options.topology.pipeline == 1) return 1;
  int64_t weight_bytes = 0;
  for (const auto& rank : shape.ranks()) weight_bytes = std::max(weight_bytes, static_cast<int64_t>(rank.weight_bytes()));
  return worker::steps_in_flight(options, weight_bytes);
}

DecodeRow row_of(const Measured& measured, const rpc::ReplicaShape& shape, int64_t batch, int parts) {
  DecodeRow row;
  row.batch = batch;
  const Distribution steps = distribution(measured.steps, {});
  row.steps = static_cast<int64_t>(measured.steps.size());
  row.step_median = steps.median;
  row.step_mean = steps.mean;
  const rpc::ReplicaReport& report = measured.after;
  row.context = static_cast<double>(report.cached_tokens()) / std::max(1u, report.running());
  row.slots = row.context / std::max(1.0, report.mean_slots_ratio());
  for (int i = 0; i < report.ranks_size(); ++i) {
    row.pages_total += static_cast<int64_t>(shape.ranks(i).pages_total());
    row.pages_used += static_cast<int64_t>(shape.ranks(i).pages_total() - report.ranks(i).pages_free());
    row.weight_bytes += static_cast<int64_t>(shape.ranks(i).weight_bytes());
    row.page_bytes = static_cast<int64_t>(shape.ranks(i).page_bytes());
  }
  const auto iterations = static_cast<double>(report.counters().iterations() - measured.before.counters().iterations());
  const double busy = report.counters().device_seconds() - measured.before.counters().device_seconds();
  if (iterations > 0 && busy > 0) row.device_share = std::min(1.0, busy / iterations * parts / row.step_mean);
  return row;
}

struct Bench {
  DecodeFlags& flags;
  worker::ModelConfig model;
  DecodeReport report;

  DecodeRow run(double ratio);
};

DecodeRow Bench::run(double ratio) {
  worker::EngineOptions options = flags.engine.options;
  options.dmc_synthetic_cr = ratio > 1.0 ? ratio : 0.0;
  // Spread over their lives, sequences take what the mean one takes; a little is left for chance.
  const int64_t peak = flags.spread ? (flags.input_len + flags.output_len / 2) * 103 / 100 + options.block_size / 2 : flags.input_len + flags.output_len;
  const int64_t batch = flags.batch_size > 0 ? flags.batch_size : find_batch(options, model, peak);
  options.max_num_seqs = batch;
  options.max_num_batched_tokens = std::max(options.max_num_batched_tokens, batch);
  OfflineEngine engine(options);
  const rpc::ReplicaShape shape = engine.status().shape;
  DecodeRow row = row_of(measure(engine, flags, prompts_of(flags, options, batch, model.vocab)), shape, batch, parts_of(options, shape));
  row.cr = ratio;
  row.largest = flags.batch_size == 0;
  const DecodeLoad load{batch, row.slots, ratio > 1.0, options.quantization == "fp8", options.topology.tensor, options.topology.pipeline};
  if (report.roofline.bandwidth > 0) row.limit = decode_limit(model, load, report.roofline);
  report.provenance = provenance_of(engine.model(), shape, 1);
  return row;
}

// After the engine that measured has given its memory back.
void add_parts(const DecodeFlags& flags, DecodeRow& row) {
  worker::EngineOptions options = flags.engine.options;
  options.dmc_synthetic_cr = row.cr > 1.0 ? row.cr : 0.0;
  options.max_num_seqs = row.batch;
  options.max_num_batched_tokens = std::max(options.max_num_batched_tokens, row.batch);
  row.parts = step_parts(options, row.batch, static_cast<int64_t>(row.context) - 16);
}

int run_decode(DecodeFlags& flags) {
  worker::EngineOptions& options = flags.engine.options;
  if (flags.max_batch && flags.batch_size > 0) throw UsageError("--max-batch finds the batch: leave --batch-size out");
  if (options.max_model_len == 0) options.max_model_len = flags.input_len + flags.output_len;
  if (options.max_model_len < flags.input_len + flags.output_len) {
    throw UsageError(fmt::format("--max-model-len {}: --input-len {} + --output-len {} do not fit", options.max_model_len, flags.input_len, flags.output_len));
  }
  finish_engine_flags(flags.engine);
  options = worker::resolved(options);
  options.max_num_batched_tokens = kTokensOfAStep;
  Bench bench{flags, worker::open_model(options.model, {options.load_format, options.adapter, options.seed})->config(), {}};
  bench.report.input_len = flags.input_len;
  bench.report.output_len = flags.output_len;
  bench.report.spread = flags.spread;
  bench.report.roofline.bandwidth = worker::on_gpu(options) ? measured_copy_rate(bench.report.gpu) : 0.0;
  for (double ratio : flags.ratios) {
    bench.report.rows.push_back(bench.run(ratio));
    if (flags.breakdown) add_parts(flags, bench.report.rows.back());
    if (!flags.output_json.empty()) write_file(flags.output_json, to_json(bench.report).dump(2) + "\n");
  }
  fmt::print("{}", text_table(bench.report));
  if (!flags.report.empty()) write_file(flags.report, to_html(bench.report));
  return kExitOk;
}

}  // namespace

Command add_bench_decode(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("decode", "decode steps of a full batch at given lengths and compression ratios; prompts are not computed");
  auto flags = std::make_shared<DecodeFlags>();
  add_engine_flags(*app, flags->engine);
  app->add_option("--input-len", flags->input_len, "prompt tokens of a sequence")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app->add_option("--output-len", flags->output_len, "tokens it generates: steps are measured where half of them are there")
      ->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app->add_option("--batch-size", flags->batch_size, "sequences at once; 0 (or --max-batch): as many as fit when all have reached their end")
      ->check(CLI::Range(0, 1 << 16))->capture_default_str();
  app->add_flag("--max-batch", flags->max_batch, "the largest batch that fits");
  app->add_option("--steps", flags->steps, "steps measured")->check(CLI::Range(1, 100000))->capture_default_str();
  app->add_option("--compression-ratios", flags->ratios, "one run each, e.g. 1,2,4,8; above 1 decisions are forced (synthetic)")
      ->delimiter(',')->check(CLI::Range(1.0, 64.0))->capture_default_str();
  app->add_flag("--spread", flags->spread, "sequences evenly over their lives, as continuous batching has them, instead of all half-way; the largest batch "
                                           "is then what fits at their mean length");
  app->add_flag("--breakdown", flags->breakdown, "where a step's time goes, from further steps whose operations are timed one by one (one pipeline stage)");
  app->add_option("--output-json", flags->output_json, "write the figures there")->type_name("FILE");
  app->add_option("--report", flags->report, "write an HTML page with plots there")->type_name("FILE.html");
  return {app, [flags] { return run_decode(*flags); }};
}

}  // namespace accrete::launch
