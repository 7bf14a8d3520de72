// accrete bench serve: load on a running server, over HTTP or the binary protocol.
#include <fmt/format.h>

#include <cstdio>
#include <limits>
#include <memory>
#include <nlohmann/json.hpp>
#include <sstream>

#include "launch/bench/load_generator.h"
#include "launch/bench/openai_backend.h"
#include "launch/bench/report.h"
#include "launch/bench/rpc_backend.h"
#include "launch/bench/server_facts.h"
#include "launch/commands/commands.h"

namespace accrete::launch {
namespace {

struct ServeBenchFlags {
  std::string backend = "openai";
  OpenAiTarget target;
  int rpc_port = 8001;
  std::string dataset = "random";
  std::string dataset_path;
  RandomPrompts random{.count = 100, .input_len = 128, .output_len = 128};
  int64_t sharegpt_output_len = 0;
  LoadPlan plan{.request_rate = std::numeric_limits<double>::infinity()};
  std::string metrics = "ttft,tpot,itl";
  std::string percentiles = "99";
  std::string output_json;
  std::string report;
};

std::vector<std::string> split(const std::string& list) {
  std::vector<std::string> parts;
  std::istringstream stream(list);
  for (std::string part; std::getline(stream, part, ',');) parts.push_back(part);
  return parts;
}

std::vector<std::string> metric_names(const std::string& list) {
  std::vector<std::string> names = split(list);
  for (const std::string& name : names) {
    if (name != "ttft" && name != "tpot" && name != "itl" && name != "e2el") {
      throw UsageError(fmt::format("--percentile-metrics {}: '{}' is none of ttft, tpot, itl, e2el", list, name));
    }
  }
  return names;
}

std::vector<double> percentile_ranks(const std::string& list) {
  std::vector<double> ranks;
  for (const std::string& part : split(list)) {
    double rank = -1.0;
    if (!CLI::detail::lexical_cast(part, rank) || rank < 0 || rank > 100) {
      throw UsageError(fmt::format("--metric-percentiles {}: '{}' is no number from 0 to 100", list, part));
    }
    ranks.push_back(rank);
  }
  return ranks;
}

std::vector<BenchPrompt> make_prompts(const ServeBenchFlags& flags, const ServerFacts& facts) {
  if (flags.dataset == "random") {
    RandomPrompts wanted = flags.random;
    wanted.vocab = facts.vocab;
    return random_prompts(wanted);
  }
  const SharegptPrompts wanted{.path = flags.dataset_path, .count = flags.random.count, .output_len = flags.sharegpt_output_len,
                               .max_len = facts.max_model_len};
  return sharegpt_prompts(wanted, [&](const std::string& text) {
    return tokenize_remotely(flags.target.server, facts.provenance.model, text);
  });
}

SendFn make_backend(const ServeBenchFlags& flags) {
  if (flags.backend == "openai") return openai_backend(flags.target);
  return rpc_backend({.host = flags.target.server.host, .port = flags.rpc_port, .api_key = flags.target.server.api_key,
                      .model = flags.target.model, .temperature = flags.target.temperature, .ignore_eos = flags.target.ignore_eos});
}

int run_serve_bench(ServeBenchFlags& flags) {
  if (flags.dataset == "sharegpt-json" && flags.dataset_path.empty()) throw UsageError("--dataset-path: needed with --dataset sharegpt-json");
  ServingReport report{.provenance = {}, .summary = {}, .records = {}, .backend = flags.backend, .request_rate = flags.plan.request_rate,
                       .max_concurrency = flags.plan.max_concurrency, .metrics = metric_names(flags.metrics)};
  const std::vector<double> ranks = percentile_ranks(flags.percentiles);
  const ServerFacts facts = ask_server(flags.target.server, flags.target.model);
  report.provenance = facts.provenance;
  flags.target.model = facts.provenance.model;
  flags.plan.seed = flags.random.seed;
  const std::vector<BenchPrompt> prompts = make_prompts(flags, facts);
  const SendFn send = make_backend(flags);
  LoadResult result = run_load(prompts, flags.plan, send);
  report.records = std::move(result.records);
  report.summary = summarise(report.records, result.duration, ranks);
  fmt::print("{}", text_block(report));
  if (!flags.output_json.empty()) write_file(flags.output_json, to_json(report).dump(2) + "\n");
  if (!flags.report.empty()) write_file(flags.report, to_html(report));
  if (report.summary.succeeded == 0) throw std::runtime_error(fmt::format("every request failed: {}", report.summary.first_error));
  return kExitOk;
}

void add_target_flags(CLI::App& app, ServeBenchFlags& flags) {
  app.add_option("--backend", flags.backend, "openai (HTTP) or rpc (the binary protocol)")->check(CLI::IsMember({"openai", "rpc"}))->capture_default_str();
  app.add_option("--host", flags.target.server.host, "the server's host")->capture_default_str();
  app.add_option("--port", flags.target.server.port, "its HTTP port")->check(CLI::Range(1, 65535))->capture_default_str();
  app.add_option("--rpc-port", flags.rpc_port, "its RPC port, for --backend rpc")->check(CLI::Range(1, 65535))->capture_default_str();
  app.add_option("--api-key", flags.target.server.api_key, "its key");
  app.add_option("--model", flags.target.model, "the model's API name; default: the server's first");
  app.add_option("--endpoint", flags.target.endpoint, "path of the completions endpoint")->capture_default_str();
  app.add_option("--temperature", flags.target.temperature, "of every request")->check(CLI::Range(0.0, 100.0))->capture_default_str();
  app.add_option("--ignore-eos", flags.target.ignore_eos, "true: generate the full length whatever the model says")->capture_default_str();
}

void add_load_flags(CLI::App& app, ServeBenchFlags& flags) {
  app.add_option("--request-rate", flags.plan.request_rate, "requests a second (Poisson); inf: all at once")
      ->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--burstiness", flags.plan.burstiness, "1: Poisson; less: burstier; more: steadier")->check(CLI::PositiveNumber)->capture_default_str();
  app.add_option("--max-concurrency", flags.plan.max_concurrency, "requests open at once; 0: no limit")->check(CLI::Range(0, 1 << 24))->capture_default_str();
  app.add_option("--num-prompts", flags.random.count, "requests")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app.add_option("--dataset,--dataset-name", flags.dataset, "random or sharegpt-json")->check(CLI::IsMember({"random", "sharegpt-json"}))->capture_default_str();
  app.add_option("--dataset-path", flags.dataset_path, "the sharegpt-json file")->type_name("FILE");
  app.add_option("--input-len,--random-input-len", flags.random.input_len, "random: prompt tokens")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app.add_option("--output-len,--random-output-len", flags.random.output_len, "random: tokens to generate")->check(CLI::Range(1, 1 << 24))->capture_default_str();
  app.add_option("--random-range-ratio", flags.random.range_ratio, "random: lengths vary by this share")->check(CLI::Range(0.0, 0.99))->capture_default_str();
  app.add_option("--sharegpt-output-len", flags.sharegpt_output_len, "sharegpt-json: tokens to generate; 0: the recorded answer's")
      ->check(CLI::Range(0, 1 << 24))->capture_default_str();
  app.add_option("--seed", flags.random.seed, "of prompts and arrival times")->capture_default_str();
}

}  // namespace

Command add_bench_serve(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("serve", "latency and throughput of a running server under load");
  auto flags = std::make_shared<ServeBenchFlags>();
  add_target_flags(*app, *flags);
  add_load_flags(*app, *flags);
  app->add_option("--percentile-metrics", flags->metrics, "which of ttft,tpot,itl,e2el to print")->capture_default_str();
  app->add_option("--metric-percentiles", flags->percentiles, "percentiles to print, e.g. 50,90,99")->capture_default_str();
  app->add_option("--output-json", flags->output_json, "write the figures there")->type_name("FILE");
  app->add_option("--report", flags->report, "write an HTML page with plots there")->type_name("FILE.html");
  return {app, [flags] { return run_serve_bench(*flags); }};
}

}  // namespace accrete::launch
