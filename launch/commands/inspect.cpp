// accrete inspect: what a model is, what its ranks would hold, and what its caches look like after a text.
#include <fmt/format.h>

#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "launch/bench/report.h"
#include "launch/cli/engine_flags.h"
#include "launch/commands/commands.h"
#include "launch/engine/offline_engine.h"
#include "launch/engine/provenance.h"
#include "launch/inspect/cache_table.h"
#include "launch/inspect/shard_plan.h"
#include "launch/profile/slot_profile.h"
#include "launch/text/model_text.h"
#include "worker/model/tensor_source.h"

namespace accrete::launch {
namespace {

// Tokens generated at most while the caches are looked at; the request is cancelled as soon as they have been seen.
constexpr int64_t kLookTokens = 256;

struct InspectFlags {
  EngineFlags engine;
  std::string run_text;
  std::string prompt;
  std::string profile;
  int64_t profile_length = 0;
  std::string output_json;
};

DType dtype_named(const std::string& name, DType automatic) {
  if (name == "float32") return DType::f32;
  return name == "bfloat16" ? DType::bf16 : automatic;
}

std::string dmc_line(const worker::ModelConfig& c) {
  if (!c.dmc) return "none (a plain Llama: every token appends)";
  return fmt::format("target CR {:g}, window {}, offset {:g}", c.dmc->target_cr, c.dmc->window, c.dmc->offset);
}

void print_config(const worker::TensorSource& source) {
  const worker::ModelConfig& c = source.config();
  const auto row = [](const char* label, const std::string& value) { fmt::print("{:<22} {}\n", label, value); };
  row("File", source.describe());
  row("Architecture", c.architecture);
  row("Parameters", fmt::format("{:.1f} million", static_cast<double>(parameters_of(c)) / 1e6));
  row("Layers", std::to_string(c.layers));
  row("Hidden, MLP", fmt::format("{}, {}", c.hidden, c.mlp));
  row("Query, KV heads", fmt::format("{}, {} of size {}", c.query_heads, c.kv_heads, c.head_size));
  row("Vocabulary", fmt::format("{}{}", c.vocab, c.tied_embeddings ? ", tied embeddings" : ""));
  row("Context", fmt::format("{} tokens, RoPE theta {:g}{}", c.max_position, c.rope_theta, c.rope_scaling ? fmt::format(", scaled {:g}x", c.rope_scaling->factor) : ""));
  row("DMC", dmc_line(c));
  row("Hash", source.hash());
}

nlohmann::json config_json(const worker::TensorSource& source) {
  const worker::ModelConfig& c = source.config();
  nlohmann::json json = {{"file", source.describe()}, {"hash", source.hash()}, {"architecture", c.architecture}, {"parameters", parameters_of(c)},
                         {"layers", c.layers}, {"hidden_size", c.hidden}, {"intermediate_size", c.mlp}, {"query_heads", c.query_heads},
                         {"kv_heads", c.kv_heads}, {"head_size", c.head_size}, {"vocab_size", c.vocab}, {"max_position", c.max_position},
                         {"tied_embeddings", c.tied_embeddings}, {"dmc", nullptr}};
  if (c.dmc) json["dmc"] = {{"target_cr", c.dmc->target_cr}, {"window", c.dmc->window}, {"offset", c.dmc->offset}};
  return json;
}

void print_plan(const ShardPlan& plan, const parallel::Topology& topology) {
  fmt::print("\nRanks of a replica, -tp {} -pp {}\n  rank stage shard    layers  KV heads       weights  cache per token at CR 1\n", topology.tensor, topology.pipeline);
  for (const RankPlan& rank : plan.ranks) {
    fmt::print("{:>6}{:>6}{:>6}  {:>8}  {:>8}  {:>12}  {}\n", rank.rank, rank.place.stage, rank.place.shard,
               fmt::format("{}-{}", rank.shard.layers.begin, rank.shard.layers.end - 1),
               fmt::format("{}-{}", rank.shard.kv_heads.begin, rank.shard.kv_heads.end - 1), human_bytes(rank.weight_bytes),
               human_bytes(rank.cache_bytes_per_token));
  }
}

nlohmann::json plan_json(const ShardPlan& plan) {
  nlohmann::json ranks = nlohmann::json::array();
  for (const RankPlan& rank : plan.ranks) {
    ranks.push_back({{"rank", rank.rank}, {"stage", rank.place.stage}, {"shard", rank.place.shard}, {"layer_begin", rank.shard.layers.begin},
                     {"layer_end", rank.shard.layers.end}, {"kv_head_begin", rank.shard.kv_heads.begin}, {"kv_head_end", rank.shard.kv_heads.end},
                     {"weight_bytes", rank.weight_bytes}, {"cache_bytes_per_token", rank.cache_bytes_per_token}});
  }
  return ranks;
}

// Runs the text and looks at the replica while its one sequence is open.
CacheTable look_at_caches(OfflineEngine& engine, std::vector<int32_t> tokens) {
  worker::Request request;
  request.prompt = std::move(tokens);
  request.sampling.temperature = 0.0f;
  request.max_tokens = std::min<int64_t>(kLookTokens, engine.model().max_model_len() - static_cast<int64_t>(request.prompt.size()));
  request.ignore_eos = true;
  if (request.max_tokens < 1) throw UsageError(fmt::format("--run-text: {} tokens do not fit --max-model-len {}", request.prompt.size(), engine.model().max_model_len()));
  const auto prompt_tokens = request.prompt.size();
  std::optional<CacheTable> table;
  std::string error;
  engine.run({std::move(request)}, [&](const TimedOutput& timed) {
    if (timed.output.finish == worker::FinishReason::error) error = timed.output.error;
    if (timed.output.finish != worker::FinishReason::none || table) return;
    const worker::ReplicaStatus status = engine.status();
    if (status.report.running() != 1 || status.report.cached_tokens() < prompt_tokens) return;
    table = cache_table(engine.model(), status.shape, status.report);
    engine.cancel(timed.output.id);
  });
  if (!error.empty()) throw std::runtime_error(error);
  if (!table) throw std::runtime_error("the sequence ended before its caches could be looked at");
  return *table;
}

// The profile's table and JSON; `source` is the model to compare it with, null when none was named.
nlohmann::json show_profile(const InspectFlags& flags, const worker::TensorSource* source) {
  const SlotProfile profile = read_profile(flags.profile);
  if (source != nullptr) {
    const worker::ModelConfig& c = source->config();
    if (profile.layers != c.layers || profile.kv_heads != c.kv_heads) {
      throw UsageError(fmt::format("--profile {}: has {} layers of {} KV heads, the model has {} of {}", flags.profile, profile.layers, profile.kv_heads, c.layers, c.kv_heads));
    }
  }
  const bool other = source != nullptr && source->hash() != profile.model_hash;
  fmt::print("{}Profile {}{}\n{}", source != nullptr ? "\n" : "", flags.profile, other ? ", measured on another file of a model of this shape" : "",
             to_text(profile, flags.profile_length));
  return to_json(profile);
}

int run_inspect(InspectFlags& flags) {
  const bool runs = !flags.run_text.empty() || !flags.prompt.empty();
  if (!flags.profile.empty() && flags.engine.options.model.empty() && !runs) {
    const nlohmann::json profile = show_profile(flags, nullptr);
    if (!flags.output_json.empty()) write_file(flags.output_json, nlohmann::json{{"profile", profile}}.dump(2) + "\n");
    return kExitOk;
  }
  finish_engine_flags(flags.engine);
  const worker::EngineOptions& options = flags.engine.options;
  nlohmann::json json;
  {
    const auto source = worker::open_model(options.model, {.load_format = options.load_format, .adapter = options.adapter, .seed = options.seed});
    const ShardPlan plan = plan_shards(source->config(), options.topology, dtype_named(options.dtype, DType::bf16), dtype_named(options.kv_cache_dtype, DType::f32));
    if (!plan.error.empty()) throw UsageError(plan.error);
    print_config(*source);
    print_plan(plan, options.topology);
    json = {{"model", config_json(*source)}, {"ranks", plan_json(plan)}};
    if (!flags.profile.empty()) json["profile"] = show_profile(flags, source.get());
  }
  bool agrees = true;
  if (runs) {
    const std::string text = flags.run_text.empty() ? flags.prompt : read_text(flags.run_text, "--run-text");
    OfflineEngine engine(options);
    const CacheTable table = look_at_caches(engine, ModelText(engine.model().tokenizer()).encode(text));
    const Provenance provenance = provenance_of(engine.model(), engine.status().shape, 1);
    fmt::print("\n{}{}\n", to_text(table), provenance.line());
    json["caches"] = to_json(table);
    json["caches"]["synthetic_cr"] = provenance.synthetic_cr;
    agrees = table.agrees();
  }
  if (!flags.output_json.empty()) write_file(flags.output_json, json.dump(2) + "\n");
  return agrees ? kExitOk : kExitFailed;
}

}  // namespace

Command add_inspect(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("inspect", "what a model is, what its ranks hold, what its caches become");
  auto flags = std::make_shared<InspectFlags>();
  add_engine_flags(*app, flags->engine);
  CLI::Option* text = app->add_option("--run-text", flags->run_text, "run this text and show slots per layer and head; - reads stdin")->type_name("FILE");
  app->add_option("--prompt", flags->prompt, "the same with a text given here")->type_name("TEXT")->excludes(text);
  CLI::Option* profile = app->add_option("--profile", flags->profile, "show this profile of accrete profile; without MODEL that alone")->type_name("FILE");
  app->add_option("--profile-length", flags->profile_length, "show the profile after so many tokens; 0: its longest")
      ->check(CLI::Range(0, 1 << 28))->needs(profile)->capture_default_str();
  app->add_option("--output-json", flags->output_json, "write all of it there")->type_name("FILE");
  return {app, [flags] { return run_inspect(*flags); }};
}

}  // namespace accrete::launch
