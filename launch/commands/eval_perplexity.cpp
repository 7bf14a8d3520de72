// accrete eval perplexity: how well the model predicts a text, through the engine's own caches.
#include <fmt/format.h>

#include <cmath>
#include <cstdio>
#include <memory>
#include <nlohmann/json.hpp>

#include "launch/bench/report.h"
#include "launch/cli/engine_flags.h"
#include "launch/commands/commands.h"
#include "launch/engine/offline_engine.h"
#include "launch/engine/provenance.h"
#include "launch/terminal/progress.h"
#include "launch/text/model_text.h"

namespace accrete::launch {
namespace {

struct PerplexityFlags {
  EngineFlags engine;
  std::string text;
  int64_t stride = 0;
  int64_t max_tokens = 0;
  std::string output_json;
};

// A stretch of the text that is read at once; the tokens from `scored` on count.
struct Window {
  size_t begin = 0, end = 0, scored = 0;
};

struct PerplexityFigures {
  double log_likelihood = 0.0;
  int64_t scored = 0;               // tokens
  double slots = 0.0;               // mean over heads, averaged over windows
  double cached_tokens = 0.0;       // likewise
  std::vector<double> layer_slots;  // [L] mean over KV heads, averaged over windows
};

// Each token but a window's first is scored once, with up to `length` - 1 tokens before it and at least length - stride.
std::vector<Window> windows_of(size_t tokens, size_t length, size_t stride) {
  std::vector<Window> windows;
  for (size_t begin = 0, done = 0; done < tokens; begin += stride) {
    const size_t end = std::min(begin + length, tokens);
    if (end - begin >= 2) windows.push_back({begin, end, std::max(done, begin + 1)});
    done = end;
  }
  return windows;
}

std::vector<worker::Request> window_requests(const std::vector<Window>& windows, const std::vector<int32_t>& tokens) {
  std::vector<worker::Request> requests;
  for (const Window& window : windows) {
    worker::Request request;
    request.prompt.assign(tokens.begin() + static_cast<std::ptrdiff_t>(window.begin), tokens.begin() + static_cast<std::ptrdiff_t>(window.end));
    request.sampling.temperature = 0.0f;
    request.max_tokens = 1;
    request.ignore_eos = true;
    request.prompt_logprobs = 0;
    requests.push_back(std::move(request));
  }
  return requests;
}

void add_usage(const worker::RequestUsage& usage, int64_t layers, double share, PerplexityFigures& figures) {
  figures.slots += usage.kv_slots * share;
  figures.cached_tokens += usage.kv_slots * usage.compression_ratio * share;
  figures.layer_slots.resize(static_cast<size_t>(layers));
  const size_t heads = usage.head_slots.size() / static_cast<size_t>(layers);
  for (size_t i = 0; i < usage.head_slots.size(); ++i) {
    figures.layer_slots[i / heads] += usage.head_slots[i] * share / static_cast<double>(heads);
  }
}

PerplexityFigures measure(OfflineEngine& engine, const std::vector<Window>& windows, const std::vector<int32_t>& tokens) {
  PerplexityFigures figures;
  std::vector<size_t> next(windows.size());  // the text position of each window's next score
  for (size_t i = 0; i < windows.size(); ++i) next[i] = windows[i].begin + 1;
  Progress progress("windows", static_cast<int64_t>(windows.size()));
  int64_t finished = 0;
  const double share = 1.0 / static_cast<double>(windows.size());
  engine.run(window_requests(windows, tokens), [&](const TimedOutput& timed) {
    const worker::RequestOutput& output = timed.output;
    const Window& window = windows[output.id];
    for (const worker::TokenOut& token : output.prompt_tokens) {
      if (next[output.id]++ < window.scored) continue;
      figures.log_likelihood += token.logprob;
      ++figures.scored;
    }
    if (output.finish == worker::FinishReason::none) return;
    if (output.finish == worker::FinishReason::error) throw std::runtime_error(output.error);
    if (next[output.id] != window.end) throw std::runtime_error(fmt::format("window at token {} was not scored to its end", window.begin));
    add_usage(output.usage, engine.model().layers(), share, figures);
    progress.update(++finished);
  });
  return figures;
}

double ratio_of(double tokens, double slots) { return slots > 0 ? tokens / slots : 1.0; }

void print_figures(const PerplexityFigures& f, const Provenance& provenance, double perplexity) {
  fmt::print("{:<28} {:.4f}\n{:<28} {}\n", "Perplexity:", perplexity, "Tokens scored:", f.scored);
  fmt::print("{:<28} {:.1f}\n{:<28} {:.2f}\n", "Mean slots of a head:", f.slots, "Compression ratio:", ratio_of(f.cached_tokens, f.slots));
  fmt::print("Compression ratio by layer:\n");
  for (size_t layer = 0; layer < f.layer_slots.size(); ++layer) {
    fmt::print("  layer {:<3} {:.2f}\n", layer, ratio_of(f.cached_tokens, f.layer_slots[layer]));
  }
  fmt::print("{}\n", provenance.line());
}

nlohmann::json figures_json(const PerplexityFigures& f, const Provenance& p, double perplexity) {
  nlohmann::json layers = nlohmann::json::array();
  for (double slots : f.layer_slots) layers.push_back(ratio_of(f.cached_tokens, slots));
  return {{"perplexity", perplexity}, {"tokens", f.scored}, {"mean_slots", f.slots}, {"compression_ratio", ratio_of(f.cached_tokens, f.slots)},
          {"compression_ratio_by_layer", layers}, {"model", p.model}, {"device", p.device}, {"dtype", p.dtype}, {"shape", p.shape},
          {"synthetic_cr", p.synthetic_cr}, {"dummy_weights", p.dummy_weights}};
}

int run_perplexity(PerplexityFlags& flags) {
  const std::string text = read_text(flags.text, "--text");
  finish_engine_flags(flags.engine);
  OfflineEngine engine(flags.engine.options);
  std::vector<int32_t> tokens = ModelText(engine.model().tokenizer()).encode(text);
  if (flags.max_tokens > 0 && static_cast<int64_t>(tokens.size()) > flags.max_tokens) tokens.resize(static_cast<size_t>(flags.max_tokens));
  if (tokens.size() < 2) throw UsageError(fmt::format("--text {}: needs at least two tokens of text", flags.text));
  const auto length = static_cast<size_t>(engine.model().max_model_len()) - 1;  // one more token is generated
  const size_t stride = flags.stride > 0 ? static_cast<size_t>(flags.stride) : length;
  if (stride > length) throw UsageError(fmt::format("--stride {}: more than the {} tokens of a window; some would never be read", stride, length));
  const PerplexityFigures figures = measure(engine, windows_of(tokens.size(), length, stride), tokens);
  const double perplexity = std::exp(-figures.log_likelihood / static_cast<double>(figures.scored));
  const Provenance provenance = provenance_of(engine.model(), engine.status().shape, 1);
  print_figures(figures, provenance, perplexity);
  if (!flags.output_json.empty()) write_file(flags.output_json, figures_json(figures, provenance, perplexity).dump(2) + "\n");
  return kExitOk;
}

}  // namespace

Command add_eval_perplexity(CLI::App& parent) {
  CLI::App* app = parent.add_subcommand("perplexity", "perplexity of a text, with slots and compression ratio per layer");
  auto flags = std::make_shared<PerplexityFlags>();
  add_engine_flags(*app, flags->engine);
  app->add_option("--text", flags->text, "the text; - reads stdin")->required()->type_name("FILE");
  app->add_option("--stride", flags->stride, "tokens between windows of --max-model-len - 1; 0: windows do not overlap")
      ->check(CLI::Range(0, 1 << 28))->capture_default_str();
  app->add_option("--max-tokens", flags->max_tokens, "read no more of the text; 0: all")->check(CLI::Range(0, 1 << 28))->capture_default_str();
  app->add_option("--output-json", flags->output_json, "write the figures there")->type_name("FILE");
  return {app, [flags] { return run_perplexity(*flags); }};
}

}  // namespace accrete::launch
