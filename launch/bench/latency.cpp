// accrete bench latency: one batch at a time through the engine, prefill and decode steps apart.
#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "launch/bench/dataset.h"
#include "launch/bench/engine_requests.h"
#include "launch/bench/report.h"
#include "launch/cli/engine_flags.h"
#include "launch/commands/commands.h"
#include "launch/engine/offline_engine.h"
#include "launch/engine/provenance.h"
#include "launch/terminal/progress.h"

namespace accrete::launch {
namespace {

struct LatencyFlags {
  EngineFlags engine;
  int64_t input_len = 32;
  int64_t output_len = 128;
  int64_t batch_size = 8;
  int64_t warmups = 1;
  int64_t iterations = 5;
  std::string output_json;
};

// One iteration of the batch, in seconds.
struct Iteration {
  double total = 0.0;
  double prefill = 0.0;       // until every sequence has its first token
  std::vector<double> steps;  // between tokens of the whole batch, after that
  double compression_ratio = 0.0;
};

Iteration run_batch(OfflineEngine& engine, const std::vector<BenchPrompt>& prompts) {
  const auto start = std::chrono::steady_clock::now();
  std::vector<int64_t> counts(prompts.size());
  std::vector<double> slowest;  // slowest[i]: when the last sequence got its token i
  Iteration result;
  engine.run(engine_requests(prompts), [&](const TimedOutput& timed) {
    const double when = std::chrono::duration<double>(timed.when - start).count();
    if (timed.output.finish == worker::FinishReason::error) throw std::runtime_error(timed.output.error);
    int64_t& count = counts[timed.output.id];
    for (size_t i = 0; i < timed.output.tokens.size(); ++i, ++count) {
      if (static_cast<int64_t>(slowest.size()) <= count) slowest.resize(static_cast<size_t>(count) + 1);
      slowest[static_cast<size_t>(count)] = std::max(slowest[static_cast<size_t>(count)], when);
    }
    if (timed.output.finish != worker::FinishReason::none) {
      result.compression_ratio += timed.output.usage.compression_ratio / static_cast<double>(prompts.size());
    }
  });
  if (slowest.empty()) throw std::runtime_error("the engine produced no token");
  result.prefill = slowest.front();
  result.total = slowest.back();
  for (size_t i = 1; i < slowest.size(); ++i) result.steps.push_back(slowest[i] - slowest[i - 1]);
  return result;
}

struct LatencyFigures {
  Distribution total, prefill, step;  // seconds
  double prefill_rate = 0.0, decode_rate = 0.0;  // tokens a second, from the medians
  double compression_ratio = 0.0;
};

LatencyFigures figures_of(const std::vector<Iteration>& iterations, const LatencyFlags& flags) {
  std::vector<double> totals, prefills, steps;
  LatencyFigures figures;
  for (const Iteration& iteration : iterations) {
    totals.push_back(iteration.total);
    prefills.push_back(iteration.prefill);
    steps.insert(steps.end(), iteration.steps.begin(), iteration.steps.end());
    figures.compression_ratio = iteration.compression_ratio;
  }
  const std::vector<double> percentiles{10, 90, 99};
  figures.total = distribution(std::move(totals), percentiles);
  figures.prefill = distribution(std::move(prefills), percentiles);
  figures.step = distribution(std::move(steps), percentiles);
  const auto batch = static_cast<double>(flags.batch_size);
  if (figures.prefill.median > 0) figures.prefill_rate = batch * static_cast<double>(flags.input_len) / figures.prefill.median;
  if (figures.step.median > 0) figures.decode_rate = batch / figures.step.median;
  return figures;
}

void print_figures(const LatencyFigures& f, const Provenance& provenance, const LatencyFlags& flags) {
  fmt::print("{:=^50}\n", " Latency Benchmark Result ");
  const auto row = [](const char* label, double value, int digits) { fmt::print("{:<40} {:<10.{}f}\n", label, value, digits); };
  fmt::print("{:<40} {} x {} + {}\n", "Batch x input + output tokens:", flags.batch_size, flags.input_len, flags.output_len);
  row("Avg latency (s):", f.total.mean, 4);
  for (const auto& [p, value] : f.total.percentiles) fmt::print("{:<40} {:<10.4f}\n", fmt::format("P{:g} latency (s):", p), value);
  row("Median prefill (ms):", f.prefill.median * 1e3, 2);
  row("Prefill throughput (tok/s):", f.prefill_rate, 1);
  row("Median decode step (ms):", f.step.median * 1e3, 3);
  row("P99 decode step (ms):", f.step.percentiles.empty() ? 0.0 : f.step.percentiles.back().second * 1e3, 3);
  row("Decode throughput (tok/s):", f.decode_rate, 1);
  row("Measured compression ratio:", f.compression_ratio, 2);
  fmt::print("{}\n{}\n", std::string(50, '='), provenance.line());
}

nlohmann::json latency_json(const LatencyFigures& f, const Provenance& p, const LatencyFlags& flags) {
  return {{"model", p.model}, {"device", p.device}, {"dtype", p.dtype}, {"shape", p.shape}, {"synthetic_cr", p.synthetic_cr},
          {"dummy_weights", p.dummy_weights}, {"batch_size", flags.batch_size}, {"input_len", flags.input_len},
          {"output_len", flags.output_len}, {"iterations", flags.iterations}, {"avg_latency", f.total.mean},
          {"latencies", f.total.sorted}, {"median_prefill_s", f.prefill.median}, {"prefill_tokens_per_s", f.prefill_rate},
          {"median_decode_step_s", f.step.median}, {"decode_tokens_per_s", f.decode_rate},
          {"compression_ratio", f.compression_ratio}};
}

int run_latency(LatencyFlags& flags) {
  worker::EngineOptions& options = flags.engine.options;
  if (options.max_num_seqs < flags.batch_size) options.max_num_seqs = flags.batch_size;
  if (options.max_model_len == 0) options.max_model_len = flags.input_len + flags.output_len;
  if (options.max_model_len < flags.input_len + flags.output_len) {
    throw UsageError(fmt::format("--max-model-len {}: --input-len {} + --output-len {} do not fit", options.max_model_len, flags.input_len, flags.output_len));
  }
  finish_engine_flags(flags.engine);
  OfflineEngine engine(options);
  const RandomPrompts wanted{.count = flags.batch_size, .input_len = flags.input_len, .output_len = flags.output_len,
                             .vocab = engine.model().vocab_size(), .seed = options.seed};
  const std::vector<BenchPrompt> prompts = random_prompts(wanted);
  std::vector<Iteration> iterations;
  {
    Progress progress("iterations", flags.warmups + flags.iterations);
    for (int64_t i = 0; i < flags.warmups + flags.iterations; ++i) {
      Iteration iteration = run_batch(engine, prompts);
      if (i >= flags.warmups) iterations.push_back(std::move(iteration));
      progress.update(i + 1);
    }
  }
  const LatencyFigures figures = figures_of(iterations, flags);
  const Provenance provenance = provenance_of(engine.model(), engine.status().shape, 1);
  print_figures(figures, provenance, flags);
  if (!flags.output_json.empty()) write_file(flags.output_json, latency_json(figures, provenance, flags).dump(2) + "\n");
  return kExitOk;
}

}  // namespace

Command add_bench_latency(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("latency", "time of one batch: prefill and decode steps apart");
  auto flags = std::make_shared<LatencyFlags>();
  add_engine_flags(*app, flags->engine);
  app->add_option("--input-len", flags->input_len, "prompt tokens of each sequence")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app->add_option("--output-len", flags->output_len, "tokens to generate")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app->add_option("--batch-size", flags->batch_size, "sequences at once")->check(CLI::Range(1, 1 << 16))->capture_default_str();
  app->add_option("--num-iters-warmup", flags->warmups, "iterations not counted")->check(CLI::Range(0, 1000))->capture_default_str();
  app->add_option("--num-iters", flags->iterations, "iterations counted")->check(CLI::Range(1, 10000))->capture_default_str();
  app->add_option("--output-json", flags->output_json, "write the figures there")->type_name("FILE");
  return {app, [flags] { return run_latency(*flags); }};
}

}  // namespace accrete::launch
