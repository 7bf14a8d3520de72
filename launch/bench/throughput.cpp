// accrete bench throughput: as many requests as fit through the engine at once, no server between.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>

#include "launch/bench/dataset.h"
#include "launch/bench/engine_requests.h"
#include "launch/bench/report.h"
#include "launch/bench/steady.h"
#include "launch/cli/engine_flags.h"
#include "launch/commands/commands.h"
#include "launch/engine/offline_engine.h"
#include "launch/engine/provenance.h"
#include "launch/terminal/progress.h"
#include "worker/engine/settings.h"

namespace accrete::launch {
namespace {

struct ThroughputFlags {
  EngineFlags engine;
  int64_t num_prompts = 100;
  int64_t input_len = 128;
  int64_t output_len = 128;
  double range_ratio = 0.0;
  double steady = 0.0;
  std::string output_json;
  std::string report;
};

std::vector<RequestRecord> measure(OfflineEngine& engine, const std::vector<BenchPrompt>& prompts, double& duration) {
  std::vector<RequestRecord> records(prompts.size());
  Progress progress("requests", static_cast<int64_t>(prompts.size()));
  int64_t finished = 0;
  const auto start = std::chrono::steady_clock::now();
  engine.run(engine_requests(prompts), [&](const TimedOutput& timed) {
    RequestRecord& record = records[timed.output.id];
    const double when = std::chrono::duration<double>(timed.when - start).count();
    if (!timed.output.tokens.empty()) record.token_times.push_back(when);
    record.output_tokens += static_cast<int64_t>(timed.output.tokens.size());
    if (timed.output.finish == worker::FinishReason::none) return;
    record.ended = when;
    record.input_tokens = static_cast<int64_t>(prompts[timed.output.id].tokens.size());
    record.compression_ratio = timed.output.usage.compression_ratio;
    if (timed.output.finish == worker::FinishReason::error) record.error = timed.output.error;
    progress.update(++finished);
  });
  duration = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return records;
}

int run_steady(const ThroughputFlags& flags, OfflineEngine& engine) {
  const worker::EngineOptions options = worker::resolved(flags.engine.options);
  const SteadyLoad load{.running = options.max_num_seqs, .input_len = flags.input_len, .output_len = flags.output_len, .followers = flags.num_prompts,
                        .step_tokens = options.max_num_batched_tokens, .vocab = engine.model().vocab_size(), .seed = options.seed};
  const SteadyRates rates = measure_steady(engine, steady_prompts(load), load, flags.steady);
  const Provenance provenance = provenance_of(engine.model(), engine.status().shape, 1);
  const double outputs = static_cast<double>(rates.output_tokens) / rates.seconds, prompts = static_cast<double>(rates.prompt_tokens) / rates.seconds;
  const double step_ms = 1e3 * rates.seconds / static_cast<double>(std::max<int64_t>(1, rates.iterations));
  fmt::print("Steady state: {:.2f} output tokens/s, {:.2f} prompt tokens/s over {:.1f} s, {} sequences, {:.2f} ms an iteration\n", outputs, prompts,
             rates.seconds, load.running, step_ms);
  fmt::print("Measured compression ratio:  {:.2f}\n{}\n", rates.compression_ratio, provenance.line());
  if (rates.ran_dry) fmt::print("The requests ran out: a larger --num-prompts, or a shorter --steady\n");
  if (flags.output_json.empty()) return kExitOk;
  const nlohmann::json json{{"backend", "engine"}, {"steady", true}, {"model", provenance.model}, {"device", provenance.device}, {"dtype", provenance.dtype},
                            {"shape", provenance.shape}, {"dummy_weights", provenance.dummy_weights}, {"synthetic_cr", provenance.synthetic_cr},
                            {"input_len", load.input_len}, {"output_len", load.output_len}, {"sequences", load.running},
                            {"max_num_batched_tokens", load.step_tokens}, {"seconds", rates.seconds}, {"output_tokens_per_s", outputs},
                            {"prompt_tokens_per_s", prompts}, {"iteration_ms", step_ms}, {"compression_ratio", rates.compression_ratio},
                            {"ran_dry", rates.ran_dry}};
  write_file(flags.output_json, json.dump(2) + "\n");
  return kExitOk;
}

int run_throughput(ThroughputFlags& flags) {
  worker::EngineOptions& options = flags.engine.options;
  const auto longest = static_cast<int64_t>(static_cast<double>(flags.input_len + flags.output_len) * (1.0 + flags.range_ratio)) + 2;
  if (options.max_model_len == 0) options.max_model_len = longest;
  finish_engine_flags(flags.engine);
  if (flags.steady > 0 && (flags.range_ratio > 0 || !flags.report.empty())) {
    throw UsageError("--steady: leave --random-range-ratio and --report out");
  }
  OfflineEngine engine(options);
  if (flags.steady > 0) return run_steady(flags, engine);
  const std::vector<BenchPrompt> prompts = random_prompts({.count = flags.num_prompts, .input_len = flags.input_len,
                                                           .output_len = flags.output_len, .range_ratio = flags.range_ratio,
                                                           .vocab = engine.model().vocab_size(), .seed = options.seed});
  ServingReport report{.provenance = provenance_of(engine.model(), engine.status().shape, 1), .summary = {}, .records = {},
                       .backend = "engine", .request_rate = std::numeric_limits<double>::infinity(), .max_concurrency = 0, .metrics = {}};
  double duration = 0.0;
  report.records = measure(engine, prompts, duration);
  report.summary = summarise(report.records, duration, {99});
  const ServingSummary& s = report.summary;
  fmt::print("Throughput: {:.2f} requests/s, {:.2f} total tokens/s, {:.2f} output tokens/s\n", s.request_throughput, s.total_throughput,
             s.output_throughput);
  fmt::print("Total num prompt tokens:  {}\nTotal num output tokens:  {}\n", s.input_tokens, s.output_tokens);
  fmt::print("Measured compression ratio:  {:.2f}\n{}\n", s.compression_ratio, report.provenance.line());
  if (!flags.output_json.empty()) write_file(flags.output_json, to_json(report).dump(2) + "\n");
  if (!flags.report.empty()) write_file(flags.report, to_html(report));
  if (s.failed > 0) throw std::runtime_error(fmt::format("{} of {} requests failed: {}", s.failed, flags.num_prompts, s.first_error));
  return kExitOk;
}

}  // namespace

Command add_bench_throughput(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("throughput", "tokens per second of the engine alone");
  auto flags = std::make_shared<ThroughputFlags>();
  add_engine_flags(*app, flags->engine);
  app->add_option("--num-prompts", flags->num_prompts, "requests")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app->add_option("--input-len", flags->input_len, "prompt tokens of a request")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app->add_option("--output-len", flags->output_len, "tokens to generate")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app->add_option("--random-range-ratio", flags->range_ratio, "lengths vary by this share")->check(CLI::Range(0.0, 0.99))->capture_default_str();
  app->add_option("--steady", flags->steady, "seconds to look at a load that has been going on for long: --max-num-seqs sequences spread over their lives, "
                                             "whose prompts are not computed, followed by --num-prompts whole requests")
      ->check(CLI::Range(0.0, 86400.0))->capture_default_str();
  app->add_option("--output-json", flags->output_json, "write the figures there")->type_name("FILE");
  app->add_option("--report", flags->report, "write an HTML page with plots there")->type_name("FILE.html");
  return {app, [flags] { return run_throughput(*flags); }};
}

}  // namespace accrete::launch
